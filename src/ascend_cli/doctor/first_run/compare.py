"""Whether two runs of a model gave the same, as far as chips promise: log-probabilities, and tokens but for ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE = 0.15  # of a log-probability between two runs in sixteen bits
TIE = 0.15  # two tokens closer than this may change places
CPU_TOLERANCE = 0.3  # of a log-probability between sixteen bits and float32 on the CPU

Position = Mapping[str, float]  # log-probabilities of the likeliest tokens and the chosen one, by token


@dataclass(frozen=True)
class Answer:
    """Of one prompt: its tokens, the new ones, and what was likely at each."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    positions: Sequence[Position]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Answer:
        return cls(document["prompt"], document["tokens"], document["positions"])


@dataclass(frozen=True)
class Difference:
    """Where two answers part, or None; `worst` is the largest difference of a log-probability until there."""

    worst: float
    what: str = ""


def compare(found: Answer, base: Answer, tolerance: float = TOLERANCE) -> Difference:
    """An answer against the same prompt's in the base run."""
    if list(found.prompt) != list(base.prompt):
        return Difference(float("inf"), "the prompts are not the same")
    worst = 0.0
    for step, (token, other) in enumerate(zip(found.tokens, base.tokens, strict=False)):
        here, there = found.positions[step], base.positions[step]
        if token != other:
            behind = there.get(str(other), 0.0) - there.get(str(token), float("-inf"))
            if behind > TIE:
                return Difference(worst, f"token {step + 1} is {token} where {other} is likelier by {behind:.2f}")
            return Difference(worst)  # a tie: what follows belongs to other texts
        gap = abs(here[str(token)] - there[str(token)])
        worst = max(worst, gap if gap == gap else float("inf"))
        if not gap <= tolerance:
            return Difference(worst, f"token {step + 1} has a log-probability off by {gap:.2f}")
    if len(found.tokens) != len(base.tokens):
        return Difference(worst, f"{len(found.tokens)} tokens where there were {len(base.tokens)}")
    return Difference(worst)


@dataclass(frozen=True)
class Verdict:
    """Of one part of a step: how many answers were compared, and the first that differs."""

    part: str
    answers: int
    worst: float
    what: str = ""  # empty: the same

    @property
    def same(self) -> bool:
        return not self.what


def judge(part: str, found: Mapping[int, Answer], base: Mapping[int, Answer], tolerance: float = TOLERANCE) -> Verdict:
    """All answers of a part against the base's, by number of the prompt."""
    worst, first = 0.0, ""
    for number, answer in found.items():
        difference = compare(answer, base[number], tolerance)
        worst = max(worst, difference.worst)
        if difference.what and not first:
            first = f"prompt {number + 1}: {difference.what}"
    return Verdict(part, len(found), worst, first)
