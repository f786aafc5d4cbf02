"""The table of vLLM's options: its pages are those that are written, and each row says how it is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ascend_facts import serve_flags

ROOT = Path(__file__).parents[3]
ROWS = (*serve_flags.flags(), *serve_flags.features())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_are_those_that_are_written(language: serve_flags.Language) -> None:
    """If not: `python -m ascend_facts.serve_flags`."""
    page = ROOT / "docs" / serve_flags.PAGES[language]
    assert page.read_text(encoding="utf-8") == serve_flags.render(language)


def test_every_row_says_how_it_is_known() -> None:
    assert {row.verdict for row in ROWS} <= set(serve_flags.VERDICTS["en"])
    for row in ROWS:
        if row.verdict == "works":
            assert row.tested_by, row.name
        elif row.verdict == "refused":
            assert row.tests(), row.name
        elif row.verdict == "no effect":
            assert row.en, row.name
        assert bool(row.refused_with) == bool(row.says), row.name
        assert bool(row.en) == bool(row.zh), row.name


def test_every_named_test_exists() -> None:
    for row in ROWS:
        for test in row.tests():
            file, _, name = test.partition("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), test
