"""Where rows to compare come from: results files, other tools' too, and the figures that ship with this tool."""

from __future__ import annotations

from pathlib import Path

from ascend_cli.bench import foreign, results
from ascend_cli.bench.published import published_rows
from ascend_cli.bench.results import MANIFEST, Row

ATLAS_300I_DUO = "atlas-300i-duo"  # names the published figures wherever a file is expected


def load(source: str | Path) -> list[Row]:
    """Rows of a results file (other tools' too), of every one in a folder, or of the data set "atlas-300i-duo".

    Raises UsageError if there are none, or they are of another schema.
    """
    if str(source) == ATLAS_300I_DUO:
        return published_rows()
    path = Path(source)
    found = foreign.rows_of(path)
    if not found and path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if file.name != MANIFEST]
        found = [row for file in files for row in foreign.rows_of(file) or results.load(file)]
    return found or results.load(path)
