"""What tests tried, counted while they run and kept test by test, so that the pages can be written from several runs.

`build/reliability.json`: {test: {"outcome", "items": {R1: {what: number}}, "largest": [names], "run"}}.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = Path(__file__).resolve().parents[2] / "build" / "reliability.json"


@dataclass
class Kept:
    """One test: its outcome, and what it counted."""

    outcome: str = ""
    items: dict[str, dict[str, float]] = field(default_factory=dict)
    largest: list[str] = field(default_factory=list)  # counts of which the largest is told, not the sum
    run: str = ""  # when the run began that it is of: a page from several runs says so


RUN = time.strftime("%Y-%m-%d %H:%M:%S")
TESTS: dict[str, Kept] = {}


def _test() -> Kept:
    name = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
    return TESTS.setdefault(name, Kept(run=RUN))


def record(item: str, what: str, number: float) -> None:
    """Add to a count of one of R1 to R16."""
    counts = _test().items.setdefault(item, {})
    counts[what] = counts.get(what, 0) + number


def record_largest(item: str, what: str, number: float) -> None:
    """Keep the largest of a measured quantity."""
    kept = _test()
    counts = kept.items.setdefault(item, {})
    counts[what] = max(counts.get(what, number), number)
    if what not in kept.largest:
        kept.largest.append(what)


def ended(test: str, outcome: str) -> None:
    kept = TESTS.setdefault(test, Kept(run=RUN))
    if kept.outcome != "failed":  # a teardown that passes mends nothing
        kept.outcome = outcome


def merge() -> dict[str, Kept]:
    """This run's tests over those that are kept, which are written back."""
    before: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    kept = {name: Kept(**value) for name, value in before.items()} | TESTS
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps({name: vars(value) for name, value in kept.items()}, indent=1), encoding="utf-8")
    return kept


def counts(kept: dict[str, Kept]) -> dict[str, dict[str, float]]:
    """Over all tests that passed, by item."""
    found: dict[str, dict[str, float]] = {}
    for one in kept.values():
        if one.outcome != "passed":
            continue
        for item, numbers in one.items.items():
            row = found.setdefault(item, {})
            for what, number in numbers.items():
                row[what] = max(row.get(what, number), number) if what in one.largest else row.get(what, 0) + number
    return found
