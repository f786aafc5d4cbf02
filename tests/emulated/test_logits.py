"""Teacher-forced logits on emulated chips, within fp16 noise of transformers' in fp32.

What is compared are log-probabilities of the five likeliest tokens at every position of the prompt (prefill) and of the
answer (decode).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .assertions import (
    LONG,
    NOISE,
    PROMPTS,
    TIE,
    errors,
    requests,
    root_mean_square,
    rounding_errors,
    tokens_of,
    worst_gap,
)

PROMPTS_AND_LONG = [LONG, *PROMPTS]
ROUNDS = [requests(*PROMPTS_AND_LONG, logprobs=5, prompt_logprobs=5)]
TIMES_THE_NOISE = 1.5  # an honest fp16 engine rounds in other places than transformers does
EAGER_AND_GRAPH = [{"enforce_eager": True}, {}]


def sequences_of(answered: dict) -> list[list[int]]:
    return [prompt + answer for prompt, answer in zip(PROMPTS_AND_LONG, tokens_of(answered), strict=True)]


def assert_right(reference_logits: Callable, model: Path, answered: dict) -> None:
    judged = reference_logits(model, sequences_of(answered))
    for prompt, logits, answer in zip(PROMPTS_AND_LONG, judged, answered["rounds"][0]["answers"], strict=True):
        assert np.abs(errors(logits, answer)).max() < NOISE
        assert worst_gap(logits, prompt, answer["tokens"][0]) < TIE


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_one_chip(run_engines: Callable, reference_logits: Callable, qwen3: Path, chip: str) -> None:
    eager, graph = run_engines(qwen3, ROUNDS, EAGER_AND_GRAPH, chip)
    assert_right(reference_logits, qwen3, eager)
    assert_right(reference_logits, qwen3, graph)
    assert graph["rounds"][0]["stats"]["graphs"]["replays"] > 0
    assert eager["rounds"][0]["stats"]["graphs"]["replays"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_tensor_parallel(run_engines: Callable, reference_logits: Callable, qwen3: Path, ranks: int, chip: str) -> None:
    choices = [{**choice, "tensor_parallel_size": ranks} for choice in EAGER_AND_GRAPH]
    for answered in run_engines(qwen3, ROUNDS, choices, chip, count=ranks):
        assert_right(reference_logits, qwen3, answered)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_a_real_checkpoint(run_engines: Callable, reference_logits: Callable, smollm2: Path, chip: str) -> None:
    """Thirty layers' roundings add up, so the measure is what fp16 costs transformers itself on the same tokens."""
    eager, graph = run_engines(smollm2, ROUNDS, EAGER_AND_GRAPH, chip)
    for answered in (eager, graph):  # the second is not judged anew where it took the same tokens
        sequences = sequences_of(answered)
        exact, rounded = (reference_logits(smollm2, sequences, dtype=dtype) for dtype in ("float32", "float16"))
        noise = root_mean_square([rounding_errors(*pair) for pair in zip(exact, rounded, strict=True)])
        answers = answered["rounds"][0]["answers"]
        error = root_mean_square([errors(*pair) for pair in zip(exact, answers, strict=True)])
        print(f"{chip}: error {error:.5f}, transformers' in fp16 {noise:.5f}")
        assert error < TIMES_THE_NOISE * noise
        for prompt, logits, tokens in zip(PROMPTS_AND_LONG, exact, tokens_of(answered), strict=True):
            assert worst_gap(logits, prompt, tokens) < TIE


@pytest.mark.slow
def test_pipeline_parallel(run_engines: Callable, reference_logits: Callable, qwen3: Path) -> None:
    for answered in run_engines(qwen3, ROUNDS, [{"pipeline_parallel_size": 2}], "910B3", count=2):
        assert_right(reference_logits, qwen3, answered)
