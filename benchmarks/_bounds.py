"""Bounds that an issue sets, printed with what one run measured against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bound:
    """`cases` are (where, value) pairs; the worst of them is judged. at_least turns the direction round."""

    name: str
    limit: float
    cases: Sequence[tuple[str, float]] = field(default_factory=list)
    at_least: bool = False

    @property
    def worst(self) -> tuple[str, float]:
        return (min if self.at_least else max)(self.cases, key=lambda case: case[1])

    @property
    def met(self) -> bool:
        value = self.worst[1]
        return value >= self.limit if self.at_least else value <= self.limit


def print_bounds(bounds: Sequence[Bound]) -> None:
    """Every bound that has a case: its limit, the worst case, and where that was if it misses the limit."""
    width = max(len(bound.name) for bound in bounds) + 2
    print(f"\n{'bound':<{width}}{'':>10}{'limit':>9}{'worst':>9}")
    for bound in bounds:
        if bound.cases:
            direction, worst = _direction(bound), bound.worst[1]
            print(f"{bound.name:<{width}}{direction:>10}{bound.limit:>9.2f}{worst:>9.2f}  {_verdict(bound)}")


def bound_table(bounds: Sequence[Bound]) -> list[str]:
    """The same as a table in Markdown."""
    lines = ["| bound | limit | worst | |", "| --- | --- | --- | --- |"]
    for bound in bounds:
        if bound.cases:
            limit = f"{_direction(bound)} {bound.limit:g}"
            lines.append(f"| {bound.name} | {limit} | {bound.worst[1]:.2f} | {_verdict(bound)} |")
    return lines


def _direction(bound: Bound) -> str:
    return "at least" if bound.at_least else "at most"


def _verdict(bound: Bound) -> str:
    return "met" if bound.met else f"MISSED: {bound.worst[0]}"
