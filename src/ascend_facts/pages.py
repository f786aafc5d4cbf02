"""Pages of docs/ that are written from a table of this package, one for each language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]


def write(pages: Mapping[Language, str], render: Callable[[Language], str]) -> None:
    """Write each page under docs/ of a checkout, and print where it is."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    for language, page in pages.items():
        (docs / page).write_text(render(language), encoding="utf-8")
        print(docs / page)
