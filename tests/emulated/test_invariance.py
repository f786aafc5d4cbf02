"""Greedy answers do not depend on how the engine schedules: batch, chunks, cached prefixes, preemption, asynchrony.

A token may differ where the reference's logits are closer than fp16 tells apart: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .assertions import GREEDY, LONG, PROMPTS, TIE, assert_same_but_for_ties, requests, tokens_of, worst_gap

EVERY = [LONG, *PROMPTS]
TOGETHER = requests(*EVERY)
# Each begins within the first block of 128 tokens and ends in the second.
GROWING = [[(13 * index + 7 * row) % 40000 + 100 for index in range(122)] for row in range(4)]
GROW = [{"prompt": prompt, "sampling": {**GREEDY, "max_tokens": 16}} for prompt in GROWING]


@pytest.mark.parametrize("chip", ["310P3", pytest.param("910B3", marks=pytest.mark.slow)])
def test_on_one_chip(run_engines: Callable, reference_logits: Callable, qwen3: Path, chip: str) -> None:
    alone = [requests(prompt) for prompt in EVERY]
    plain, chunked, crowded = run_engines(
        qwen3,
        [TOGETHER, GROW],
        [
            {"enable_prefix_caching": False, "rounds": [TOGETHER, GROW, *alone]},
            {"max_num_batched_tokens": 64, "async_scheduling": False, "rounds": [TOGETHER, GROW, requests(LONG)]},
            # Five blocks of 128 tokens, of which one is vLLM's null block, for four requests that come to need eight.
            {"num_gpu_blocks_override": 5},
        ],
        chip,
    )
    together, grown = tokens_of(plain, 0), tokens_of(plain, 1)
    one_by_one = [tokens_of(plain, 2 + index)[0] for index in range(len(EVERY))]
    assert_same_but_for_ties(reference_logits, qwen3, EVERY, one_by_one, together)
    for answered in (chunked, crowded):
        assert_same_but_for_ties(reference_logits, qwen3, EVERY, tokens_of(answered, 0), together)
        assert_same_but_for_ties(reference_logits, qwen3, GROWING, tokens_of(answered, 1), grown)
    assert plain["preemptions"] == chunked["preemptions"] == 0
    assert crowded["preemptions"] > 0
    cached = chunked["rounds"][2]["answers"][0]
    assert cached["cached_tokens"] == 128
    assert_same_but_for_ties(reference_logits, qwen3, [LONG], cached["tokens"][:1], together[:1])


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_over_several_chips(run_engines: Callable, reference_logits: Callable, qwen3: Path, chip: str) -> None:
    """Tensor-parallel 2 with chunks, cached prefixes, preemption and synchronous scheduling at once."""
    options = {
        "tensor_parallel_size": 2,
        "max_num_batched_tokens": 64,
        "num_gpu_blocks_override": 5,
        "async_scheduling": False,
    }
    (answered,) = run_engines(qwen3, [TOGETHER, GROW, requests(LONG)], [options], chip, count=2)
    assert answered["preemptions"] > 0
    prompts = [*EVERY, *GROWING, LONG]
    tokens = [answer for number in range(3) for answer in tokens_of(answered, number)]
    judged = reference_logits(qwen3, [prompt + answer for prompt, answer in zip(prompts, tokens, strict=True)])
    assert max(worst_gap(*case) for case in zip(judged, prompts, tokens, strict=True)) < TIE
