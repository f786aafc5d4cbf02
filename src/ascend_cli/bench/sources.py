"""Where rows to compare come from: results files, and the figures that ship with this tool."""

from __future__ import annotations

from pathlib import Path

from ascend_cli.bench import foreign, results
from ascend_cli.bench.published import published_rows
from ascend_cli.bench.results import Row

ATLAS_300I_DUO = "atlas-300i-duo"  # names the published figures wherever a file is expected


def load(source: str | Path) -> list[Row]:
    """Rows of a results file (vLLM's own too), of every one in a folder, or of the data set "atlas-300i-duo".

    Raises UsageError if there are none, or they are of another schema.
    """
    if str(source) == ATLAS_300I_DUO:
        return published_rows()
    path = Path(source)
    return (foreign.rows_of(path) if path.is_file() else None) or results.load(path)
