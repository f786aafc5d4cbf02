"""One engine under a mixed load for many steps: `python -m tests.reliability.soak MODEL STEPS SEED OUT [SECONDS]`.

Requests of random lengths come, some share prefixes, some go away. All of it is decided by the seed, so a failing run
is one line to repeat, and two runs with one seed must do the same. With SECONDS it ends after them, whatever it has
done by then. Writes what was counted as JSON, every 10,000 steps what was counted so far.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import psutil

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the counters and the scheduler are this process's
MOST_RUNNING = 8
MOST_WAITING = 12
SAMPLE_EVERY = 100  # steps
WRITE_EVERY = 10_000


class Soak:
    def __init__(self, model: str, seed: int) -> None:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(
            model=model,
            dtype="float16",
            max_model_len=1024,
            max_num_batched_tokens=512,
            max_num_seqs=MOST_RUNNING,
            num_gpu_blocks_override=20,  # one request wants up to six: some are preempted
            gpu_memory_utilization=0.05,
            disable_log_stats=False,
            seed=seed,
        )
        self.engine = LLMEngine.from_engine_args(arguments)
        self.scheduler = self.engine.engine_core.engine_core.scheduler
        self.rng = random.Random(seed)
        self.digest = hashlib.sha256()
        self.requests = self.aborted = self.finished = self.tokens = 0
        self.alive: list[str] = []

    def arrive(self) -> None:
        from vllm import SamplingParams, TokensPrompt

        shared = [7] * (128 * self.rng.randrange(3)) if self.rng.random() < 0.5 else []
        prompt = shared + [self.rng.randrange(100, 40000) for _ in range(self.rng.randrange(1, 300))]
        name = str(self.requests)
        self.requests += 1
        # What random weights say is seldom text, and the detokenizer looks ever further back for it: a fifth of a step.
        text = self.requests % 4 == 0
        length = self.rng.randrange(1, 200)
        sampling = SamplingParams(max_tokens=length, temperature=0, ignore_eos=True, detokenize=text)
        self.engine.add_request(name, TokensPrompt(prompt_token_ids=prompt), sampling)
        self.alive.append(name)

    def leave(self) -> None:
        name = self.alive.pop(self.rng.randrange(len(self.alive)))
        self.engine.abort_request([name])
        self.aborted += 1

    def step(self) -> None:
        while len(self.alive) < MOST_WAITING and self.rng.random() < 0.15:
            self.arrive()
        if self.alive and self.rng.random() < 0.02:
            self.leave()
        if not self.alive:
            self.arrive()
        for output in self.engine.step():
            tokens = list(output.outputs[0].token_ids)
            if output.finished:
                self.finished += 1
                self.tokens += len(tokens)
                self.alive.remove(output.request_id)
            self.digest.update(f"{output.request_id}:{tokens[-1:]}:{output.finished};".encode())
        self.digest.update(f"|{len(self.scheduler.running)},{len(self.scheduler.waiting)}\n".encode())

    def drain(self) -> None:
        if self.alive:
            self.engine.abort_request(self.alive)
        self.aborted += len(self.alive)
        self.alive = []
        for _ in range(20):  # what was scheduled ahead
            if not self.engine.has_unfinished_requests() and not self.scheduler.running:
                break
            self.engine.step()

    def counted(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "finished": self.finished,
            "aborted": self.aborted,
            "tokens": self.tokens,
            "preemptions": _preemptions(),
            "digest": self.digest.hexdigest(),
        }

    @property
    def free_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())


def slope(samples: list[tuple[float, float]]) -> float:
    """Of a straight line through the later half: what a process still takes once it is warm."""
    later = samples[len(samples) // 2 :]
    if not later:
        return 0.0
    x = sum(a for a, _ in later) / len(later)
    y = sum(b for _, b in later) / len(later)
    below = sum((a - x) ** 2 for a, _ in later)
    return sum((a - x) * (b - y) for a, b in later) / below if below else 0.0


def main() -> None:
    model, steps, seed, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    limit_s = float(sys.argv[5]) if len(sys.argv) > 5 else float("inf")
    from ascend_emulator import counters

    soak = Soak(model, seed)
    free_before = soak.free_blocks
    process = psutil.Process()
    fresh = launches_of_a_step(soak, counters)
    counters.reset_stats()
    begin = time.monotonic()
    memory: list[tuple[float, float]] = []
    minutes: list[tuple[float, float]] = []
    windows: list[int] = []
    found: dict[str, Any] = {"seed": seed}
    for number in range(1, steps + 1):
        soak.step()
        elapsed_s = time.monotonic() - begin
        if number % SAMPLE_EVERY == 0:
            memory.append((number, process.memory_info().rss / 2**20))
            minutes.append((elapsed_s / 60, memory[-1][1]))
            windows.append(_launches(counters))
        last = number == steps or elapsed_s > limit_s
        if last or number % WRITE_EVERY == 0:
            found |= soak.counted() | {
                "steps": number,
                "seconds": round(elapsed_s, 1),
                "memory_mib": [round(value, 1) for _, value in memory],
                "memory_slope_mib_a_million_steps": slope(memory) * 1e6,
                "memory_slope_mib_a_minute": slope(minutes),
                "launches": windows,
            }
            out.with_suffix(".part").write_text(json.dumps(found))
        if last:
            break
    soak.drain()
    steady = [launches_of_a_step(soak, counters) for _ in range(2)]
    found |= soak.counted() | {
        "free_blocks": [free_before, soak.free_blocks],
        "running": len(soak.scheduler.running),
        "launches_a_step": [fresh, *steady],
    }
    out.write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def launches_of_a_step(soak: Soak, counters: Any) -> float:
    """Of a decode step of four requests: the same engine must do the same work, however long it has run."""
    from vllm import SamplingParams, TokensPrompt

    counted = []
    for tokens in (10, 40):
        counters.reset_stats()
        for number in range(4):
            sampling = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
            prompt = TokensPrompt(prompt_token_ids=[40000 + number, 5, 6])
            soak.engine.add_request(f"steady-{number}", prompt, sampling)
        while soak.engine.has_unfinished_requests():
            soak.engine.step()
        counted.append(_launches(counters))
    return (counted[1] - counted[0]) / 30


def _launches(counters: Any) -> int:
    """All that was launched: torch_npu launches from a queue of its own, which may lag behind a step's end."""
    import torch

    torch.npu.synchronize()
    stats = counters.stats()
    return int(stats["launches_total"]) + int(stats["graph_launches_total"])


def _preemptions() -> int:
    from vllm.v1.metrics.reader import get_metrics_snapshot

    return sum(int(one.value) for one in get_metrics_snapshot() if one.name == "vllm:num_preemptions")


if __name__ == "__main__":
    main()
