"""R3, R11, R13: a thousand clients that go away, and a cache too small for all: nothing is kept, nothing is wrong."""

from __future__ import annotations

import asyncio
import random

import httpx
import psutil
import pytest

from .results import record, record_largest
from .scale import STREAMS
from .server import Running

SEED = 20261128
AT_ONCE = 32
LONGEST = 40  # tokens before a client goes away at the latest
IDLE_LIMIT_S = 60
NEAR_TIE = 0.02  # float16's rounding of a log-probability, with other batches' order of additions, is below it
MEMORY_LIMIT = 100 << 20


@pytest.mark.breaks("limits._replay: never tell of a disconnect")
def test_canceled_streams_leave_nothing(served: Running) -> None:
    """Clients go away at random tokens, some before the first: blocks and requests are back to none, exactly."""
    before = served.complete("Once upon", max_tokens=24)
    memory = psutil.Process(served.process.pid).memory_info().rss
    taken = asyncio.run(_storm(served, STREAMS))
    asyncio.run(_idle(served))
    assert served.complete("Once upon", max_tokens=24) == before
    grown = psutil.Process(served.process.pid).memory_info().rss - memory
    assert grown < MEMORY_LIMIT
    assert sum(taken) > 0
    record("R3", "streams cancelled at random tokens", len(taken))
    record("R3", "tokens received before", sum(taken))
    record_largest("R3", "growth of the front end, MiB", grown >> 20)


async def _storm(server: Running, streams: int) -> list[int]:
    rng = random.Random(SEED)
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=AT_ONCE)) as client:

        async def one(number: int, leave_after: int) -> int:
            body = {"model": "tiny", "prompt": f"{number} was", "max_tokens": 2000, "ignore_eos": True, "stream": True}
            got = 0
            async with (
                gate,
                client.stream("POST", f"{server.url}/v1/completions", json=body, headers=server.headers) as answer,
            ):
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if got >= leave_after:
                        break
                    got += line.startswith("data: {")
            return got

        return list(await asyncio.gather(*(one(number, rng.randrange(LONGEST)) for number in range(streams))))


async def _idle(server: Running) -> None:
    for _ in range(IDLE_LIMIT_S * 5):
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        if not any(server.metric(name) for name in names):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("requests or blocks were kept after their clients had gone")


@pytest.mark.slow
@pytest.mark.breaks("conftest.served: a cache of 4,096 blocks, in which nothing is preempted")
def test_preempted_requests_answer_as_others(served: Running) -> None:
    """More tokens at once than the cache holds: requests are preempted and computed again, to the same answers.

    All at once, then as many as fit. A first difference is only allowed at a near tie.
    """
    prompts = [f"{number}: " + "word " * 1100 for number in range(32)]  # 9 blocks each, and 11 at their end
    before = served.metric("vllm:num_preemptions_total")
    together = asyncio.run(_answers(served, prompts, at_once=32))
    preempted = served.metric("vllm:num_preemptions_total") - before
    assert preempted > 0, "nothing was preempted: this test shows nothing"
    apart = asyncio.run(_answers(served, prompts, at_once=16))
    assert served.metric("vllm:num_preemptions_total") == before + preempted
    differing = [
        gap for gap in (first_difference(*pair) for pair in zip(together, apart, strict=True)) if gap is not None
    ]
    assert all(gap < NEAR_TIE for gap in differing), differing
    record("R11", "requests preempted", preempted)
    record("R11", "answers compared", len(prompts))
    record_largest("R11", "largest gap at a first difference, nat", max(differing, default=0.0))


async def _answers(server: Running, prompts: list[str], at_once: int) -> list[dict]:
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=at_once)) as client:

        async def one(prompt: str) -> dict:
            body = {"model": "tiny", "prompt": prompt, "max_tokens": 250, "ignore_eos": True, "temperature": 0}
            async with gate:
                answer = await client.post(
                    f"{server.url}/v1/completions", json=body | {"logprobs": 2}, headers=server.headers
                )
            assert answer.status_code == 200, answer.text
            return answer.json()["choices"][0]["logprobs"]

        return list(await asyncio.gather(*map(one, prompts)))


def first_difference(one: dict, other: dict) -> float | None:
    """The gap between the best two tokens where two answers part; None where they do not."""
    for left, right, best in zip(one["tokens"], other["tokens"], one["top_logprobs"], strict=True):
        if left != right:
            values = sorted(best.values(), reverse=True)
            return values[0] - values[1]
    return None
