"""What the tests of engines share: requests, their answers, and the verdict of the fp32 reference on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
# "The capital of France is", "Water boils at", "def fibonacci(n):", and one that is longer than a block of the cache.
PROMPTS = [[504, 3575, 282, 4649, 314], [15679, 27501, 28, 418], [1604, 3987, 46477, 24, 94, 727]]
LONG = [(37 * index + 11) % 40000 + 100 for index in range(150)]

NOISE = 0.03  # of a log-probability, in fp16 against fp32: logits reach 8, where fp16 steps by 1 / 128
TIE = 0.03  # two logits closer than this may change places


def requests(*prompts: list[int], **sampling: Any) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "sampling": {**GREEDY, **sampling}} for prompt in prompts]


def tokens_of(answered: dict[str, Any], round_number: int = 0) -> list[list[int]]:
    """The tokens of each request of a round."""
    return [answer["tokens"][0] for answer in answered["rounds"][round_number]["answers"]]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def gap(logits: np.ndarray, token: int) -> float:
    """By how much the likeliest token's logit exceeds this one's."""
    return float(logits.max() - logits[token])


def worst_gap(logits: np.ndarray, prompt: list[int], tokens: list[int]) -> float:
    """How far the least justified greedy token is behind the reference's choice at its place."""
    return max(gap(logits[len(prompt) - 1 + step], token) for step, token in enumerate(tokens))


def assert_same_but_for_ties(
    reference_logits: Callable, model: Path, prompts: list[list[int]], answers: list[list[int]], base: list[list[int]]
) -> None:
    """Greedy answers are those of base; one that is not takes only tokens that the reference cannot tell from its own.

    A chip promises no more: rows of one product differ in their last bits by their place in a batch, and sums over
    ranks by their order (docs/silicon.md, row 16).
    """
    others = [(prompt, answer) for prompt, answer, first in zip(prompts, answers, base, strict=True) if answer != first]
    judged = reference_logits(model, [prompt + answer for prompt, answer in others]) if others else []
    for (prompt, answer), logits in zip(others, judged, strict=True):
        assert worst_gap(logits, prompt, answer) < TIE


def errors(logits: np.ndarray, answer: dict[str, Any]) -> np.ndarray:
    """Differences of the log-probabilities in an answer, of its prompt and of its tokens, from the reference's."""
    measured = [*answer["prompt_logprobs"][1:], *answer["logprobs"]]
    expected = log_softmax(logits)
    assert len(measured) == len(expected)
    return np.array(
        [
            value - expected[position][int(token)]
            for position, entries in enumerate(measured)
            for token, value in entries.items()
        ]
    )


def rounding_errors(exact: np.ndarray, rounded: np.ndarray, likeliest: int = 5) -> np.ndarray:
    """What rounding did to the log-probabilities of each position's likeliest tokens."""
    places = np.argpartition(exact, -likeliest, axis=-1)[:, -likeliest:]
    return np.take_along_axis(log_softmax(rounded) - log_softmax(exact), places, axis=-1).ravel()


def root_mean_square(parts: list[np.ndarray]) -> float:
    return float(np.sqrt(np.square(np.concatenate(parts)).mean()))


def chance_of(observed: np.ndarray, expected: np.ndarray) -> float:
    """That counts drawn as expected are as far from it as those observed (chi-square)."""
    # The approximation by chi-square asks for five in a cell: rarer pairs share one.
    rare = expected < 5
    cells = [np.append(counts[~rare], counts[rare].sum()) for counts in (observed, expected)]
    assert len(cells[0]) > 6
    statistic = ((cells[0] - cells[1]) ** 2 / cells[1]).sum()
    freedom = torch.tensor((len(cells[0]) - 1) / 2)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=freedom.dtype)))
