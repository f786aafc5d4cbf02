"""Draft models and EAGLE's heads: three drafts a step, the greedy answer all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.tiny import END_OF_TURN, TOOL_CALL_RECITAL, VOCABULARY, build_reciter

from .assertions import LONG, PROMPTS, chance_of, log_softmax, tokens_of
from .drafters import build_drafting_reciter, build_eagle

GREEDY = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}
DRAFTS = 3
METHODS = ["draft_model", "eagle", "eagle3"]
SAID = [*range(VOCABULARY, VOCABULARY + len(TOOL_CALL_RECITAL)), END_OF_TURN]
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
@pytest.mark.parametrize("method", METHODS)
def test_drafters_give_the_greedy_answer_in_fewer_steps(
    method: str,
    chip: str,
    reciter: Path,
    drafters: dict[str, Any],
    run_engines: Callable[..., list[dict[str, Any]]],
) -> None:
    rounds = [[{"prompt": prompt, "sampling": GREEDY} for prompt in part] for part in PARTS]
    common = {"max_num_seqs": 8, "num_gpu_blocks_override": 200, "enable_prefix_caching": True}
    choices = [common, common | {"speculative_config": drafters[method], "watch": True}]
    plain, drafted = run_engines(reciter, rounds, choices, chip=chip)
    assert plain["accepted_drafts"] == 0
    for number in range(len(PARTS)):
        assert tokens_of(drafted, number) == tokens_of(plain, number)
    assert 0.2 < drafted["accepted_drafts"] / drafted["drafts"] < 1
    assert drafted["rounds"][0]["stats"]["graphs"]["replays"]
    assert drafted["rounds"][1]["answers"][0]["cached_tokens"]
    assert drafted["ragged_copies"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "drawn"),
    [("310P3", False), ("910B3", False), ("910B3", True)],  # on a 310P drawn drafts are refused: test_choices.py
)
@pytest.mark.parametrize("method", METHODS)
def test_drafters_do_not_change_what_is_sampled(
    method: str,
    chip: str,
    drawn: bool,
    reciter: Path,
    drafters: dict[str, Any],
    run_engine: Callable[..., dict[str, Any]],
    reference_logits: Callable,
) -> None:
    """Chi-square of two tokens after a first one, each of them a draft or in a draft's place, against the reference.

    The prompt ends within the recital, where a draft model is wrong about what comes next; at this temperature the
    reciter goes on with its recital twice in three times, and says any other token else.
    """
    samples, temperature = 256, 1.3
    prompt = [*PROMPTS[0], *SAID[:3]]
    sampling = {"temperature": temperature, "max_tokens": 4, "n": samples, "seed": 1, "ignore_eos": True}
    drafting = drafters[method] | ({"draft_sample_method": "probabilistic"} if drawn else {})
    options = {"speculative_config": drafting, "max_num_seqs": 32, "num_gpu_blocks_override": 200}
    drafted = run_engine(reciter, [[{"prompt": prompt, "sampling": sampling}]], chip, **options)
    answers = drafted["rounds"][0]["answers"][0]["tokens"]
    assert len(answers) == samples
    assert 0 < drafted["accepted_drafts"] < drafted["drafts"]

    rows = reference_logits(reciter, [[*prompt, *answer[:3]] for answer in answers], last=2)
    observed, expected = np.zeros((2, 2, len(SAID) + 1, len(SAID) + 1))  # [place, token before, token]; last: any other
    for answer, row in zip(answers, rows, strict=True):
        kinds = [SAID.index(token) if token in SAID else len(SAID) for token in answer]
        chances = np.exp(log_softmax(row / temperature))
        for place in range(2):
            said = chances[place, SAID]
            observed[place, kinds[place], kinds[place + 1]] += 1
            expected[place, kinds[place]] += [*said, 1 - said.sum()]
    assert chance_of(observed.ravel(), expected.ravel()) > 1e-4
