"""A conversation that the chip's cache cannot hold is answered from blocks in the host's memory, as without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .assertions import requests, tokens_of

# Five blocks of 128 tokens, of which one is vLLM's null block: no two of these fit beside one another.
TALKS = [[(31 * index + 17 * talk) % 40000 + 100 for index in range(300)] for talk in range(3)]
ROUNDS = [requests(talk) for talk in (*TALKS, *TALKS)]


@pytest.mark.slow  # two engines
@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_what_was_evicted_comes_back(run_engines: Callable, qwen3: Path, chip: str) -> None:
    small = {"num_gpu_blocks_override": 5}
    plain, offloading = run_engines(qwen3, ROUNDS, [small, small | {"kv_offloading_size": 0.25}], chip)
    answers = [tokens_of(plain, number) for number in range(len(ROUNDS))]
    assert [tokens_of(offloading, number) for number in range(len(ROUNDS))] == answers
    assert [plain["rounds"][number]["answers"][0]["cached_tokens"] for number in range(3, 6)] == [0, 0, 0]
    assert [offloading["rounds"][number]["answers"][0]["cached_tokens"] for number in range(3, 6)] == [256, 256, 256]
