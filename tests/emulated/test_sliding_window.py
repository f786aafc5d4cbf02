"""A model whose every layer sees 64 tokens back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .assertions import LONG, NOISE, PROMPTS, TIE, assert_same_but_for_ties, errors, requests, tokens_of, worst_gap

WINDOW = 64
# Whole prompts longer than the window; answers that cross its edge; answers that begin beyond it.
EVERY = [LONG, LONG[:60], LONG[: WINDOW + 1], PROMPTS[0]]


@pytest.fixture
def windowed(qwen3: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(qwen3, tmp_path / "windowed"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_sliding_window(run_engines: Callable, reference_logits: Callable, windowed: Path, chip: str) -> None:
    rounds = [requests(*EVERY, logprobs=5, prompt_logprobs=5), requests(*EVERY)]
    whole, chunked = run_engines(windowed, rounds, [{}, {"max_num_batched_tokens": 32}], chip)
    for answers in (tokens_of(chunked), tokens_of(whole, 1), tokens_of(chunked, 1)):
        assert_same_but_for_ties(reference_logits, windowed, EVERY, answers, tokens_of(whole))
    for answered in (whole, chunked):
        sequences = [prompt + tokens for prompt, tokens in zip(EVERY, tokens_of(answered), strict=True)]
        judged = reference_logits(windowed, sequences)
        for prompt, logits, answer in zip(EVERY, judged, answered["rounds"][0]["answers"], strict=True):
            assert np.abs(errors(logits, answer)).max() < NOISE
            assert worst_gap(logits, prompt, answer["tokens"][0]) < TIE
