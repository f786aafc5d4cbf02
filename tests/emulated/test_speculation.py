"""Speculated tokens change the number of steps, never the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.architectures import architectures
from conformance.places import Places
from conformance.prompts import make_prompts
from conformance.tiny import build_reciter
from conformance.verify import Verifier
from tests.models.served import on_the_cpu

from .assertions import LONG, TIE, chance_of, gap, log_softmax

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 2}
MTP = {"method": "mtp", "num_speculative_tokens": 1}
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


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_drafts_do_not_change_what_is_sampled(
    chip: str, qwen3: Path, run_engine: Callable[..., dict[str, Any]], reference_logits: Callable
) -> None:
    """Chi-square of pairs of tokens, each among four, the second after a draft, against the fp32 reference."""
    allowed, samples, temperature = LONG[:4], 600, 2.0
    prompt = [*allowed, *allowed[::-1], *allowed]
    sampling = {
        "temperature": temperature, "max_tokens": 4, "n": samples, "seed": 1, "ignore_eos": True,
        "allowed_token_ids": allowed,
    }  # fmt: skip
    options = {"speculative_config": NGRAM | {"prompt_lookup_min": 1}, "max_num_seqs": 32}
    drafted = run_engine(qwen3, [[{"prompt": prompt, "sampling": sampling}]], chip, **options)
    answers = drafted["rounds"][0]["answers"][0]["tokens"]
    assert len(answers) == samples
    assert 0 < drafted["accepted_drafts"] < 3 * samples

    rows = reference_logits(qwen3, [[*prompt, token, token] for token in allowed], last=2)
    chances = [np.exp(log_softmax(row[:, allowed] / temperature)) for row in rows]
    expected = samples * np.array([chances[first][0][first] * chances[first][1] for first in range(4)])
    observed = np.zeros((4, 4))
    for tokens in answers:
        observed[allowed.index(tokens[0]), allowed.index(tokens[1])] += 1
    assert chance_of(observed, expected) > 1e-4  # that an honest sampler is as far off


@pytest.fixture(scope="module")
def foreteller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recurrent model with a multi-token prediction layer that is right about two tokens in three (draft_head.py)."""
    folder = tmp_path_factory.mktemp("models")
    with Places() as places:
        return Verifier(architectures()["qwen3_5"], places, folder, folder / "logs", print).checkpoint()


@pytest.mark.slow  # three engine starts a chip
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_predicted_drafts_give_the_greedy_answer(
    chip: str, foreteller: Path, run_engines: Callable[..., list[dict[str, Any]]]
) -> None:
    """Of a model whose state takes in every token, refused drafts too.

    Round two has prefixes from the cache; then come prompts that are as long as a step of decoding, in blocks that have
    been another sequence's.
    """
    prompts = make_prompts(architectures()["qwen3_5"].config["vocab_size"], "generate").all
    sampling = {**GREEDY, "max_tokens": 12, "detokenize": False}
    parts = (prompts, prompts[-2:], [[7]], [[8, 9], [10, 11]])
    rounds = [[{"prompt": prompt, "sampling": sampling} for prompt in part] for part in parts]
    common = {
        "skip_tokenizer_init": True, "max_num_seqs": 8, "num_gpu_blocks_override": 200, "enable_prefix_caching": True,
    }  # fmt: skip
    drafting = common | {"speculative_config": MTP}
    choices = [common, drafting, drafting | {"enforce_eager": True}]
    plain, *drafted = run_engines(foreteller, rounds, choices, chip=chip)
    for answered in drafted:
        assert 0 < answered["accepted_drafts"] < answered["drafts"]
        for expected, found in zip(plain["rounds"], answered["rounds"], strict=True):
            assert [one["tokens"] for one in found["answers"]] == [one["tokens"] for one in expected["answers"]]
        assert all(one["cached_tokens"] for one in answered["rounds"][1]["answers"])
    assert drafted[0]["rounds"][0]["stats"]["graphs"]["replays"]


TALKER = """
import json, sys
from pathlib import Path
sys.modules["torch_npu"] = None
from conformance.architectures import architectures
from conformance.checkpoint import write_checkpoint
lessons = json.loads(sys.stdin.read())
print(write_checkpoint(architectures()["qwen3_5"], Path(sys.argv[1]), lessons=(lessons, 40)))
"""


def conversations(vocabulary: int) -> list[list[int]]:
    """First turns that end around the ends of blocks of 128 tokens, then second turns that go on from these."""
    rng = np.random.default_rng(1)
    lengths = (125, 126, 127, 128, 129, 226, 253, 383, 123, 255)
    first = [rng.integers(5, vocabulary, length).tolist() for length in lengths]
    return first + [turn + rng.integers(5, vocabulary, int(rng.integers(5, 40))).tolist() for turn in first]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As foreteller, taught the answers to most of the conversations."""
    lessons = conversations(architectures()["qwen3_5"].config["vocab_size"])[:15]
    folder = tmp_path_factory.mktemp("models")
    return Path(on_the_cpu(TALKER, str(folder), text=json.dumps(lessons)))


@pytest.mark.slow  # two engine starts a chip, and a head is taught
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_conversations_at_once_get_the_answers_that_each_gets_alone(
    chip: str, talker: Path, run_engines: Callable[..., list[dict[str, Any]]], reference_logits: Callable
) -> None:
    """Four at a time out of ten, of different lengths, so that rows move while drafts are accepted and refused.

    Drafts, prefix cache and asynchronous scheduling together; where answers part, the fp32 reference sees a near-tie.
    """
    prompts = conversations(architectures()["qwen3_5"].config["vocab_size"])
    counts = np.random.default_rng(2).integers(10, 60, len(prompts))
    wanted = [
        {"prompt": prompt, "sampling": {**GREEDY, "max_tokens": int(count), "detokenize": False}}
        for prompt, count in zip(prompts, counts, strict=True)
    ]
    common = {
        "skip_tokenizer_init": True, "max_num_seqs": 4, "num_gpu_blocks_override": 400, "max_model_len": 640,
        "enable_prefix_caching": True,
    }  # fmt: skip
    half = len(wanted) // 2
    together = {"rounds": [wanted[:half], wanted[half:]], "speculative_config": MTP, "async_scheduling": True}
    together |= {"linger_s": 0.03}  # counts of accepted drafts arrive before rows move, and not only after
    alone, at_once = run_engines(talker, [[each] for each in wanted], [common, common | together], chip=chip)
    assert at_once["accepted_drafts"] > 60
    assert sum(answer["cached_tokens"] > 0 for answer in at_once["rounds"][1]["answers"]) >= 5  # of 6 with whole blocks
    expected = [round_["answers"][0]["tokens"][0] for round_ in alone["rounds"]]
    found = [answer["tokens"][0] for round_ in at_once["rounds"] for answer in round_["answers"]]
    parted = [
        (prompt + one[:place], one[place], other[place])
        for prompt, one, other in zip(prompts, expected, found, strict=True)
        for place in [next((at for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)]
        if place is not None
    ]
    rows = reference_logits(talker, [[*text, 0] for text, _, _ in parted], last=1) if parted else []
    for row, (_, one, other) in zip(rows, parted, strict=True):
        assert (
            max(gap(row[-1], one), gap(row[-1], other)) < 5 * TIE
        )  # logits of this model spread over ten times qwen3's


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_predicted_drafts_do_not_change_what_is_sampled(
    chip: str, foreteller: Path, run_engine: Callable[..., dict[str, Any]], reference_logits: Callable
) -> None:
    """Chi-square of pairs of tokens, the second after a draft, against the fp32 reference."""
    vocabulary, samples, temperature = architectures()["qwen3_5"].config["vocab_size"], 600, 0.8
    prompt = make_prompts(vocabulary, "generate").whole[1]
    sampling = {
        "temperature": temperature, "max_tokens": 3, "n": samples, "seed": 1, "ignore_eos": True, "detokenize": False,
    }  # fmt: skip
    options = {
        "skip_tokenizer_init": True, "max_num_seqs": 32, "num_gpu_blocks_override": 400, "speculative_config": MTP,
    }  # fmt: skip
    drafted = run_engine(foreteller, [[{"prompt": prompt, "sampling": sampling}]], chip, **options)
    answers = drafted["rounds"][0]["answers"][0]["tokens"]
    assert len(answers) == samples
    assert 0 < drafted["accepted_drafts"] < drafted["drafts"]

    (first_row, _), *_ = reference_logits(foreteller, [[*prompt, 0, 0]], last=2)
    likely = np.argsort(first_row)[-6:].tolist()  # first tokens; what follows any other shares a cell
    rows = reference_logits(foreteller, [[*prompt, token, 0] for token in likely], last=2)
    chances = [np.exp(log_softmax(row / temperature)) for row in rows]
    expected = samples * np.array([both[0][first] * both[1] for first, both in zip(likely, chances, strict=True)])
    observed = np.zeros_like(expected)
    for first, second, *_ in answers:
        if first in likely:
            observed[likely.index(first), second] += 1
    counts = [np.append(cells.ravel(), samples - cells.sum()) for cells in (observed, expected)]
    assert chance_of(*counts) > 1e-4
