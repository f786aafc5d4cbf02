"""One engine from the start of its process to steady decoding: `python _decode_steps.py JOB.json RESULT.json`.

Runs under either side's Python, so it imports nothing of this repository but the emulator's counters, and uses what
vLLM 0.29 and 0.32 have in common. The engine is in this process, because the counters are.

Job:    options (of vllm.LLM), requests (numbers to decode at once), prompt_tokens, steps
Result: startup_s, startup_cpu_s, startup (counters), versions, and for each number of requests the host time of a step
        and the counters of all steps together.
"""

from __future__ import annotations

import os
import time

STARTED = time.time() - float(os.environ.get("BENCHMARK_STARTED_AT", time.time()))
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import importlib.metadata  # noqa: E402 - the clock above starts first
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

WARM_UP_STEPS = 5


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.monotonic()
    from vllm import LLM

    imported_s = time.monotonic() - started
    engine = LLM(**job["options"]).llm_engine
    ready_s = STARTED + time.monotonic() - started
    from ascend_emulator import counters

    result: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in ("vllm", "torch", "torch_npu")},
        "import_s": imported_s,
        "startup_s": ready_s,
        "startup_cpu_s": time.process_time(),
        "startup": counters.stats(),
        "kv_blocks": engine.vllm_config.cache_config.num_gpu_blocks,
        "graph_sizes": engine.vllm_config.compilation_config.cudagraph_capture_sizes,
        "decode": {},
    }
    for requests in job["requests"]:
        result["decode"][requests] = decode(engine, requests, job["prompt_tokens"], job["steps"])
    Path(sys.argv[2]).write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit would tear process groups down for seconds, which is not what is measured


def decode(engine: Any, requests: int, prompt_tokens: int, steps: int) -> dict[str, Any]:
    """Decode with `requests` requests at once and measure `steps` steps of the steady state."""
    from ascend_emulator import counters
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=10 * steps, ignore_eos=True, detokenize=False)
    for request in range(requests):
        prompt = [(7 * request + 13 * position) % 1000 + 10 for position in range(prompt_tokens)]
        engine.add_request(f"{requests}-{request}", {"prompt_token_ids": prompt}, sampling)
    produced: dict[str, int] = {}
    while len(produced) < requests:  # until every prompt is in the cache
        produced |= {output.request_id: 1 for output in engine.step()}
    for _ in range(WARM_UP_STEPS):
        engine.step()
    counters.reset_stats()
    walls, cpus, processes = [], [], []
    for _ in range(steps):
        wall, cpu, process = time.perf_counter(), time.thread_time(), time.process_time()
        outputs = engine.step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
        processes.append(time.process_time() - process)
        if len(outputs) != requests:
            raise RuntimeError(f"A decode step answered {len(outputs)} of {requests} requests: not a steady state.")
    measured = counters.stats()
    engine.abort_request([f"{requests}-{request}" for request in range(requests)])
    while engine.has_unfinished_requests():
        engine.step()
    return {
        "steps": steps,
        "wall_ms": quantiles_ms(walls),
        "engine_thread_cpu_ms": quantiles_ms(cpus),
        "process_cpu_ms": quantiles_ms(processes),
        "counters": measured,
    }


def quantiles_ms(seconds: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(seconds, n=10)
    return {"p10": tenths[0] * 1e3, "median": statistics.median(seconds) * 1e3, "p90": tenths[-1] * 1e3}


if __name__ == "__main__":
    main()
