"""What an engine says on an emulated chip, judged by transformers in fp32, and unchanged by how it is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# An engine for each configuration: minutes, not seconds.
pytestmark = pytest.mark.slow

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
# "The capital of France is", "Water boils at", "def fibonacci(n):", and one that is longer than a block.
PROMPTS = [[504, 3575, 282, 4649, 314], [15679, 27501, 28, 418], [1604, 3987, 46477, 24, 94, 727]]
LONG = [(37 * index + 11) % 40000 + 100 for index in range(150)]

# Greedy tokens may differ from fp32's argmax where two logits are closer than fp16 can tell apart.
TIE = 0.06
NOISE = 0.1  # of a log-probability, in fp16 against fp32


def requests(*prompts: list[int], **sampling: Any) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "sampling": {**GREEDY, **sampling}} for prompt in prompts]


def tokens_of(answered: dict[str, Any], index: int = 0) -> list[list[int]]:
    return [answer["tokens"][0] for answer in answered["rounds"][index]["answers"]]


def assert_judged_right(judge: Callable, model: Path, prompts: list[list[int]], answers: list[list[int]]) -> None:
    judgements = judge(model, [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    for prompt, judgement in zip(prompts, judgements, strict=True):
        assert max(judgement["gaps"][len(prompt) - 1 :]) < TIE


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_smollm2_eager_and_graph(run_engine: Callable, judge: Callable, smollm2: Path, chip: str) -> None:
    prompts = [*PROMPTS, LONG]
    eager = run_engine(smollm2, [requests(*prompts)], chip, dtype="float16", enforce_eager=True)
    graph = run_engine(smollm2, [requests(*prompts)], chip, dtype="float16")
    assert tokens_of(graph) == tokens_of(eager)
    assert_judged_right(judge, smollm2, prompts, tokens_of(eager))


def test_qwen3_logprobs(run_engine: Callable, judge: Callable, qwen3: Path) -> None:
    """A bf16 checkpoint, run as fp16 without a flag: every prompt token's log-probability, prefill and decode."""
    answered = run_engine(qwen3, [requests(LONG, prompt_logprobs=0, logprobs=0)])
    answer = answered["rounds"][0]["answers"][0]
    (judgement,) = judge(qwen3, [LONG + answer["tokens"][0]])
    measured = answer["prompt_logprobs"][1:] + answer["logprobs"]
    worst = max(abs(ours - theirs) for ours, theirs in zip(measured, judgement["logprobs"], strict=True))
    assert worst < NOISE


def test_chunked_prefill_prefix_cache_and_batch_change_nothing(run_engine: Callable, qwen3: Path) -> None:
    whole = run_engine(qwen3, [requests(LONG, *PROMPTS)], max_num_batched_tokens=256)
    chunked = run_engine(
        qwen3, [requests(LONG, *PROMPTS), requests(LONG), requests(PROMPTS[0])], max_num_batched_tokens=64
    )
    assert tokens_of(chunked) == tokens_of(whole)
    again = chunked["rounds"][1]["answers"][0]
    assert again["cached_tokens"] == 128
    assert again["tokens"][0] == tokens_of(whole)[0]
    assert tokens_of(chunked, 2)[0] == tokens_of(whole)[1]


def test_sampling_battery(run_engine: Callable, qwen3: Path) -> None:
    seeded = {"temperature": 0.8, "top_p": 0.9, "top_k": 50, "seed": 7}
    rounds = [
        requests(PROMPTS[0], PROMPTS[1], **seeded),
        [*requests(PROMPTS[1], temperature=1.0), *requests(PROMPTS[0], **seeded)],
        requests(PROMPTS[0], temperature=0.7, min_p=0.1, presence_penalty=0.5, frequency_penalty=0.2, n=2),
        requests(PROMPTS[0], repetition_penalty=1.2, logit_bias={"123": 100.0}),
        requests(PROMPTS[0], bad_words=["the"], min_tokens=3, logprobs=2),
        requests(PROMPTS[0], structured_outputs=None),
    ]
    answered = run_engine(qwen3, rounds)
    first, second = tokens_of(answered, 0), tokens_of(answered, 1)
    assert first[0] == second[1]  # a seed's tokens depend on neither the batch nor the place in it
    assert first[0] != tokens_of(answered, 5)[0]
    assert len(answered["rounds"][2]["answers"][0]["tokens"]) == 2
    assert tokens_of(answered, 3)[0][0] == 123


def test_tensor_parallel(run_engine: Callable, judge: Callable, qwen3: Path) -> None:
    answered = run_engine(qwen3, [requests(*PROMPTS)], count=2, tensor_parallel_size=2)
    assert_judged_right(judge, qwen3, PROMPTS, tokens_of(answered))
