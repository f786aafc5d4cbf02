"""The steps of a first run: what each starts and asks, in the order in which a difference tells most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BATCHES = (1, 7, 8, 9, 16, 17)  # around blocks of 32 bytes of ids, and of 16 rows of the cube
NEW_TOKENS = 16
LONG_TOKENS = 450  # of each of three prompts that are computed together: more than 1,024 in one step

TEXTS = (
    "The capital of France is", "Water boils at", "def fibonacci(n):", "One, two, three, four,",
    "The opposite of hot is", "Once upon a time there was a", "The sun rises in the", "A triangle has three",
    "import numpy as", "In 1969 the first men walked on the", "中国的首都是", "水的化学式是", "SELECT name FROM",
    "The largest planet is", "Roses are red, violets are", "She opened the door and", "The square root of 16 is",
)  # fmt: skip
LONG_TEXT = "The quick brown fox jumps over the lazy dog while the river runs quietly to the sea. "


@dataclass(frozen=True)
class Step:
    """One engine start. `rows` names what to look at where it differs: rows of docs/silicon.md, by topic."""

    name: str
    engine: Mapping[str, Any]
    chips: int
    rows: str


STEPS = (
    Step("eager", {"enforce_eager": True}, 1, "operators (`ascend doctor --probe`); rows 1, 18 to 24, 29 to 31, 40"),
    Step("graphs", {}, 1, "rows 5, 11, 15, 27, 28 (310P), 37, 38 (910B)"),
    Step("graphs, without asynchronous scheduling", {"async_scheduling": False}, 1, "rows 1, 15"),
    Step("two chips", {"tensor_parallel_size": 2}, 2, "rows 2, 5, 6, 14, 16, 17"),
)


def rounds() -> list[tuple[str, list[int]]]:
    """What every step is asked, as (name, numbers of prompts): places in TEXTS, from len(TEXTS) on long prompts."""
    singles = [("one at a time", [index]) for index in range(len(TEXTS))]
    together = [(f"{size} together", list(range(size))) for size in BATCHES if size > 1]
    longs = list(range(len(TEXTS), len(TEXTS) + 3))
    return [*singles, *(("one at a time", [index]) for index in longs), *together, ("long prompts together", longs)]
