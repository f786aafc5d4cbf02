"""Writing results: rich text for people, JSON for programs, units that read the same everywhere."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

GIB = 1 << 30
PIPE_WIDTH = 140  # where there is no terminal to fit: wide enough that no table cell is cut


def console(stderr: bool = False) -> Console:
    """A console on standard output (or error), made at each call so that tests and pipes see the current stream.

    A table wider than the terminal is printed as several that fit, its first column in each: no figure is ever cut.
    """
    from rich.console import Console
    from rich.table import Table

    from ascend_cli.tables import fitting

    class FittingConsole(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            shown = [part for item in objects for part in (fitting(self, item) if isinstance(item, Table) else [item])]
            super().print(*shown, **options)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1; the reader has what it wanted

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return FittingConsole(file=stream, width=width, highlight=False, soft_wrap=False)


def can_show(text: str) -> bool:
    """Whether standard output's encoding has every character of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def write_text(text: str) -> None:
    """A script or manifest to standard output, in UTF-8 whatever the terminal's encoding: a changed byte changes it."""
    if can_show(text) or not hasattr(sys.stdout, "buffer"):
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))


def notice(text: str) -> None:
    """Say something beside the result: to standard error, so that `--json` and pipes stay clean."""
    print(text, file=sys.stderr)


def to_json(value: Any) -> Any:
    """Plain data of a result: dataclasses become objects, enumerations and paths their text."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN and no infinity
    return value


def emit_json(value: Any) -> None:
    """Print a result as JSON: finite numbers only, and escapes where the output's encoding lacks a character."""
    text = json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    print(text if can_show(text) else json.dumps(to_json(value), indent=2, allow_nan=False))


def gib(size_bytes: float) -> str:
    """Gibibytes for people: 30.5 GiB, 0.06 GiB, and mebibytes below a hundredth."""
    if abs(size_bytes) < GIB / 100:
        return f"{size_bytes / (1 << 20):.1f} MiB"
    return f"{size_bytes / GIB:.1f} GiB" if abs(size_bytes) >= 10 * GIB else f"{size_bytes / GIB:.2f} GiB"


def count(number: float) -> str:
    return f"{number:,.0f}"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:,.1f} ms"
