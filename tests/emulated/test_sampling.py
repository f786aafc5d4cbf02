"""vLLM's sampling on a chip, judged by the fp32 reference's logits and by what each parameter promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .assertions import NOISE, PROMPTS, TIE, gap, log_softmax, requests, tokens_of

PROMPT = PROMPTS[0]
SEEDED = {"temperature": 1.0, "seed": 7}  # of the whole vocabulary: no filter hides what rounding changes
CITY = r'\{"city": "(Beijing|Paris)"\}'  # not a JSON schema: those admit blanks, which this model would never end
FORCED = 123
ROUNDS = {
    "greedy": requests(PROMPT, logprobs=5),
    "top_k of 1": requests(PROMPT, temperature=1.0, top_k=1),
    "min_p of 1": requests(PROMPT, temperature=1.0, min_p=1.0),
    "seeded": requests(PROMPT, PROMPTS[1], **SEEDED),
    "seeded in another batch": [*requests(PROMPTS[2], temperature=1.0), *requests(PROMPT, **SEEDED)],
    "several": requests(PROMPT, temperature=1.0, top_k=3, n=24, max_tokens=1, seed=1),
    "frequency penalty": requests(PROMPT, frequency_penalty=1.5),
    "presence penalty": requests(PROMPT, presence_penalty=1.5),
    "repetition penalty": requests(PROMPT, repetition_penalty=1.4),
    "bias": requests(PROMPT, logit_bias={str(FORCED): 100.0}, max_tokens=3),
    "choice": requests(PROMPT, structured_outputs={"choice": ["yes", "no"]}, ignore_eos=False),
    "pattern": requests(PROMPT, structured_outputs={"regex": CITY}, max_tokens=40, ignore_eos=False),
}


@pytest.fixture(scope="module", params=["310P3", pytest.param("910B3", marks=pytest.mark.slow)])
def sampled(request: pytest.FixtureRequest, qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers to ROUNDS by name."""
    from ascend_emulator.launcher import emulate
    from ascend_emulator.settings import Settings

    from .conftest import run_jobs

    with emulate(Settings(chip=request.param)) as machine:
        folder = tmp_path_factory.mktemp("sampling")
        (answered,) = run_jobs(machine, folder, qwen3, list(ROUNDS.values()), [{}])
    return dict(zip(ROUNDS, answered["rounds"], strict=True))


def tokens(round_: dict[str, Any], index: int = 0) -> list[int]:
    return round_["answers"][index]["tokens"][0]


@pytest.fixture
def judge(reference_logits: Callable, qwen3: Path) -> Callable[[list[int]], np.ndarray]:
    """judge(tokens of an answer to PROMPT) -> the reference's logits at each of them."""
    return lambda answer: reference_logits(qwen3, [PROMPT + answer])[0][len(PROMPT) - 1 :]


def test_logprobs(sampled: dict, judge: Callable) -> None:
    answer = sampled["greedy"]["answers"][0]
    expected = log_softmax(judge(answer["tokens"][0]))
    for position, scores in enumerate(answer["logprobs"]):
        likeliest = {int(token): value for token, value in scores.items()}
        assert len(likeliest) == 5
        assert max(abs(value - expected[position][token]) for token, value in likeliest.items()) < NOISE
        assert min(likeliest.values()) > np.sort(expected[position])[-5] - NOISE


@pytest.mark.parametrize("name", ["top_k of 1", "min_p of 1"])
def test_what_leaves_one_token_is_greedy(sampled: dict, name: str) -> None:
    assert tokens(sampled[name]) == tokens(sampled["greedy"])


def test_a_seed_decides(sampled: dict) -> None:
    """Neither the batch nor the place in it matters."""
    assert tokens(sampled["seeded"]) == tokens(sampled["seeded in another batch"], 1)
    assert tokens(sampled["seeded"]) != tokens(sampled["greedy"])


def test_top_k_draws_from_the_likeliest(sampled: dict, judge: Callable) -> None:
    drawn = [choice[0] for choice in sampled["several"]["answers"][0]["tokens"]]
    assert len(drawn) == 24
    first = judge(tokens(sampled["greedy"]))[0]
    assert all(token in np.argsort(first)[-3:] for token in drawn)
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("name", ["frequency penalty", "presence penalty", "repetition penalty"])
def test_penalties(sampled: dict, judge: Callable, name: str) -> None:
    """Each token is the likeliest once the reference's logits are penalized as OpenAI's and CTRL's formulas say."""
    answer = tokens(sampled[name])
    assert answer != tokens(sampled["greedy"])
    for step, logits in enumerate(judge(answer)):
        penalized = logits.copy()
        counts = np.bincount(answer[:step], minlength=len(logits))
        if name == "frequency penalty":
            penalized -= 1.5 * counts
        elif name == "presence penalty":
            penalized -= 1.5 * (counts > 0)
        else:
            seen = np.bincount([*PROMPT, *answer[:step]], minlength=len(logits)) > 0
            penalized[seen] = np.where(logits[seen] > 0, logits[seen] / 1.4, logits[seen] * 1.4)
        assert gap(penalized, answer[step]) < TIE


def test_logit_bias(sampled: dict) -> None:
    assert tokens(sampled["bias"]) == [FORCED] * 3


def test_structured_output(sampled: dict) -> None:
    assert sampled["choice"]["answers"][0]["text"] in ("yes", "no")
    assert json.loads(sampled["pattern"]["answers"][0]["text"])["city"] in ("Beijing", "Paris")


def test_logits_stay_on_the_chip(sampled: dict) -> None:
    """What comes back of a step is its tokens: far below the 49,152 logits of 2 bytes that they were chosen from."""
    for name in ("seeded", "frequency penalty", "repetition penalty", "several"):
        copied = sampled[name]["stats"]["copies"]["device_to_host"]
        assert copied["bytes"] < 1024 * copied["count"], name


@pytest.mark.slow
def test_words_that_stop_or_must_not_come(run_engine: Callable, qwen3: Path) -> None:
    """Bad words and stop strings, made of what the model would say."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(qwen3)
    prompt = PROMPTS[0]
    greedy = tokens_of(run_engine(qwen3, [requests(prompt)]))[0]
    words = {token: tokenizer.decode([token]) for token in greedy}
    # A word that is one token by itself, so that vLLM's own tokenization of it bans that one.
    token, word = next((token, word) for token, word in words.items() if word.isalpha() and word.isascii())
    rounds = [
        requests(prompt, bad_words=[word]),
        requests(prompt, stop=[word]),
        requests(prompt, stop=[word], min_tokens=len(greedy)),
    ]
    banned, stopped, late = (round_["answers"][0] for round_ in run_engine(qwen3, rounds)["rounds"])
    assert token not in banned["tokens"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == tokenizer.decode(greedy[: greedy.index(token)])
    assert late["tokens"][0] == greedy
