"""What an exception says, in one line."""

from __future__ import annotations

LONGEST = 400  # characters of a line that a terminal ends with


def first_line(error: BaseException, longest: int | None = None) -> str:
    """The first line of the message; of pydantic's report the first complaint; the type where there is no message.

    longest: characters, where vLLM's own lines are to be cut, some of which list all that it knows.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        place = "" if lines[1].startswith("Value error") or len(lines) < 3 else f"{lines[1]}: "
        complaint = lines[2] if place else lines[1]
        lines = [place + complaint.removeprefix("Value error, ").split(" [type=")[0]]
    line = lines[0] if lines else type(error).__name__
    return line if longest is None or len(line) <= longest else f"{line[:longest]}..."
