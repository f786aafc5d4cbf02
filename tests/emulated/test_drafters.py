"""Draft models and EAGLE's heads: three drafts a step, the greedy answer all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.tiny import build_reciter

from .assertions import LONG, PROMPTS, tokens_of
from .drafters import build_drafting_reciter, build_eagle

GREEDY = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}
DRAFTS = 3
PARTS = ([*PROMPTS, LONG], [LONG, LONG[:128], [7]], [[8, 9], [10, 11]])  # then prefixes from the cache, then short


@pytest.fixture(scope="module")
def reciter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_reciter(tmp_path_factory.mktemp("models") / "reciter")


@pytest.fixture(scope="module")
def drafters(reciter: Path) -> dict[str, dict[str, Any]]:
    """What speculative_config says for each kind."""
    folder = reciter.parent
    built = {
        "draft_model": build_drafting_reciter(folder / "draft"),
        "eagle": build_eagle(folder / "eagle", reciter, third=False),
        "eagle3": build_eagle(folder / "eagle3", reciter, third=True),
    }
    return {
        method: {"method": method, "model": str(path), "num_speculative_tokens": DRAFTS}
        for method, path in built.items()
    }


@pytest.mark.slow  # two engine starts each
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3"])
def test_drafters_give_the_greedy_answer_in_fewer_steps(
    method: str,
    chip: str,
    reciter: Path,
    drafters: dict[str, Any],
    run_engines: Callable[..., list[dict[str, Any]]],
) -> None:
    rounds = [[{"prompt": prompt, "sampling": GREEDY} for prompt in part] for part in PARTS]
    common = {"max_num_seqs": 8, "num_gpu_blocks_override": 200, "enable_prefix_caching": True}
    choices = [common, common | {"speculative_config": drafters[method]}]
    plain, drafted = run_engines(reciter, rounds, choices, chip=chip)
    assert plain["accepted_drafts"] == 0
    for number in range(len(PARTS)):
        assert tokens_of(drafted, number) == tokens_of(plain, number)
    assert 0.2 < drafted["accepted_drafts"] / drafted["drafts"] < 1
    assert drafted["rounds"][0]["stats"]["graphs"]["replays"]
    assert drafted["rounds"][1]["answers"][0]["cached_tokens"]
