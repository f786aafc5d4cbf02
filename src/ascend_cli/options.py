"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ascend_cli.errors import UsageError


def _no_flag(model: str | None) -> str | None:
    """A flag in the place of the model is one that follows `--`, before which the model was forgotten."""
    if model is not None and model.startswith("-"):
        raise UsageError(
            f"MODEL is missing: name it before `-- {model}`, such as qwen3-8b or a folder with config.json"
        )
    return model


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Chip = Annotated[
    str,
    typer.Option(
        "--chip", help="Chip or product: 310P3, 910B3, 910_9391, 'Atlas 300I Duo' ... (default: the chip here)."
    ),
]
Root = Annotated[Path, typer.Option("--root", hidden=True, help="Look at the host under this folder instead of /.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=_no_flag,
        help="A folder with config.json, a hub id (Qwen/Qwen3-8B) or a name (qwen3-8b).",
    ),
]
OptionalModel = Annotated[
    str, typer.Argument(callback=_no_flag, help="A folder with config.json, a hub id (Qwen/Qwen3-8B) or a name.")
]
