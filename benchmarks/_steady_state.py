"""Requests that one vLLM engine in this process decodes at once, step by step.

Imported by scripts that run under any side's Python: nothing of this repository, and what vLLM 0.29 and 0.32 share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

WARM_UP_STEPS = 5


class Decoding:
    """`requests` requests of `prompt_tokens` tokens, past their prompts and WARM_UP_STEPS further steps.

    Requests beyond those that the engine takes at once (`waiting`) stay in its queue. They decode until they are
    stopped or the model's length is reached.
    """

    def __init__(self, engine: Any, requests: int, prompt_tokens: int, waiting: int = 0) -> None:
        from vllm import SamplingParams

        self.engine = engine
        self.requests = requests
        length = engine.vllm_config.model_config.max_model_len - prompt_tokens
        sampling = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, detokenize=False)
        self.names = [f"{time.monotonic_ns()}-{request}" for request in range(requests + waiting)]
        for number, name in enumerate(self.names):
            engine.add_request(name, {"prompt_token_ids": prompt(prompt_tokens, number)}, sampling)
        produced: set[str] = set()
        while len(produced) < requests:  # until every prompt is in the cache
            produced |= {output.request_id for output in engine.step()}
        for _ in range(WARM_UP_STEPS):
            engine.step()

    def steps(self, count: int) -> Iterator[tuple[float, float, float]]:
        """Seconds of each step: wall, CPU of this thread, CPU of this process. Raises if a request got no token."""
        for _ in range(count):
            wall, cpu, process = time.perf_counter(), time.thread_time(), time.process_time()
            outputs = self.engine.step()
            yield time.perf_counter() - wall, time.thread_time() - cpu, time.process_time() - process
            if len(outputs) != self.requests:
                raise RuntimeError(f"A step answered {len(outputs)} of {self.requests} requests: not a steady state.")

    def stop(self) -> None:
        self.engine.abort_request(self.names)
        while self.engine.has_unfinished_requests():
            self.engine.step()


def prompt(tokens: int, number: int) -> list[int]:
    """Token ids that differ from those of any other `number`."""
    return [(7 * number + 13 * position + number // 1000) % 1000 + 10 for position in range(tokens)]


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(seconds, n=10)
    return {"p10": tenths[0] * 1e3, "median": statistics.median(seconds) * 1e3, "p90": tenths[-1] * 1e3}
