"""What a run tried, counted while it runs: `docs/reliability.md` is written from it."""

from __future__ import annotations

from collections import defaultdict

COUNTS: dict[str, dict[str, float]] = defaultdict(dict)


def record(item: str, what: str, number: float) -> None:
    """Add to a count of one of R1 to R16."""
    COUNTS[item][what] = COUNTS[item].get(what, 0) + number


def record_largest(item: str, what: str, number: float) -> None:
    """Keep the largest of a measured quantity."""
    COUNTS[item][what] = max(COUNTS[item].get(what, number), number)
