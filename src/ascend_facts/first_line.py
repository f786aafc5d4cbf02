"""What an exception says, in one line."""

from __future__ import annotations

LONGEST = 400  # characters


def first_line(error: BaseException) -> str:
    """The first line of the message; of pydantic's report the first complaint; the type where there is no message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        place = "" if lines[1].startswith("Value error") or len(lines) < 3 else f"{lines[1]}: "
        complaint = lines[2] if place else lines[1]
        lines = [place + complaint.removeprefix("Value error, ").split(" [type=")[0]]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
