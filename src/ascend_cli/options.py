"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    typer.Argument(metavar="MODEL", help="A folder with config.json, a hub id (Qwen/Qwen3-8B) or a name (qwen3-8b)."),
]
