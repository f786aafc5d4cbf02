"""Runs drawn calls in the process that has the chip, and writes down what it is about to do before it does it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aclnn.direct import Chip, Tensor

from . import serving
from .anything import Anything


@dataclass
class Tally:
    next_seed: int
    ran: int = 0
    failed: int = 0  # on the device
    refused: int = 0
    foreign_codes: dict[str, int] = field(default_factory=dict)  # phase 1 answered neither 161xxx, 361xxx nor 561xxx

    @property
    def calls(self) -> int:
        return self.ran + self.failed + self.refused


def draw(mode: str, seed: int) -> tuple[str, dict[str, Any]]:
    return serving.call(seed) if mode == "serving" else Anything(seed, garbage=mode == "garbage").call()


def run(mode: str, first_seed: int, count: int, seconds: float, note: str) -> Tally:
    """Calls from `first_seed` on until the time is up; `note` is a file that always names the seed at work."""
    chip, tally, end = Chip.get(), Tally(first_seed), time.monotonic() + seconds
    with Path(note).open("w", buffering=1) as notes:
        while tally.calls < count and time.monotonic() < end:
            name, given = draw(mode, tally.next_seed)
            notes.seek(0)
            notes.write(f"{mode} {tally.next_seed} aclnn{name}\n{describe(given)}\n")
            notes.truncate()
            answer = chip.call(name, **given)
            if answer.phase == 0:
                tally.ran += 1
            elif answer.phase == 2:
                tally.failed += 1
            else:
                tally.refused += 1
                if answer.code // 1000 not in (161, 361, 561):
                    tally.foreign_codes[f"aclnn{name} seed {tally.next_seed}: {answer.message[:200]}"] = answer.code
            chip.clear()
            tally.next_seed += 1
    return tally


def describe(given: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, Tensor):
            sizes = list(value.value.size() if value.sizes is None else value.sizes)
            return f"{str(value.value.dtype).removeprefix('torch.')}{sizes} format {value.format}"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return repr(value)

    return ", ".join(f"{name}={text(value)}" for name, value in given.items())
