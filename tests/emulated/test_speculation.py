"""Speculated tokens change the number of steps, never the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.models.tiny import build_reciter

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 2}
GREEDY = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}


@pytest.fixture(scope="module")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the end of its recital it begins anew: n-grams come back, as in quoted text or code."""
    return build_reciter(tmp_path_factory.mktemp("models") / "reciter")


@pytest.mark.slow  # two engine starts a chip
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_ngram_drafts_give_the_greedy_answer_in_fewer_steps(
    chip: str, reciter: Path, run_engines: Callable[..., list[dict[str, Any]]]
) -> None:
    rounds = [[{"prompt": prompt, "sampling": GREEDY} for prompt in ([5, 6, 7, 8], list(range(100, 170)))]]
    plain, drafted = run_engines(reciter, rounds, [{}, {"speculative_config": NGRAM}], chip=chip)
    for one, other in zip(plain["rounds"][0]["answers"], drafted["rounds"][0]["answers"], strict=True):
        assert one["tokens"] == other["tokens"]
        assert len(set(one["tokens"][0])) > 4  # a recital, not one token over and over
    assert drafted["accepted_drafts"] >= 12
    assert plain["accepted_drafts"] == 0
