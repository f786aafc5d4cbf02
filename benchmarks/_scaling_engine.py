"""One engine for `scaling`: start-up by phase, then steady decoding: `python _scaling_engine.py JOB.json RESULT.json`.

Job:    options (of vllm.LLM), steps, cases (each requests, prompt_tokens and waiting: requests beyond those at once)
Result: startup (seconds by phase, in order) and cases, each with wall_ms and cpu_ms of a step and its counters per step
"""

from __future__ import annotations

import os
import time

STARTED = time.time() - float(os.environ["BENCHMARK_STARTED_AT"])
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import functools  # noqa: E402 - the clock above starts first
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from _steady_state import Decoding, quantiles_ms  # noqa: E402

# Methods of vLLM's worker, in the order in which an engine calls them, and the phase of start-up that each is.
PHASES = {
    "init_device": "device",
    "load_model": "weights",
    "determine_available_memory": "profile",
    "initialize_from_config": "KV cache",
    "compile_or_warm_up_model": "graph capture",
}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.monotonic()
    from vllm import LLM

    from ascend_plugin.worker import AscendWorker

    phases = {"interpreter": STARTED, "imports": time.monotonic() - started}
    engine_started = time.monotonic()
    within = time_phases(AscendWorker)
    engine = LLM(**job["options"]).llm_engine
    total = time.monotonic() - engine_started
    phases |= {"configuration and the rest": total - sum(within.values())} | within
    phases["ready"] = STARTED + time.monotonic() - started
    cases = [case | measure(engine, job["steps"], **case) for case in job["cases"]]
    Path(sys.argv[2]).write_text(json.dumps({"startup": phases, "cases": cases}))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit would tear process groups down for seconds


def time_phases(worker: type) -> dict[str, float]:
    """Make the worker's methods record their seconds; returns the dictionary that they will fill."""
    seconds: dict[str, float] = {}

    def timed(method: Any, phase: str) -> Any:
        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.monotonic()
            try:
                return method(*args, **kwargs)
            finally:
                seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - started

        return run

    for name, phase in PHASES.items():
        setattr(worker, name, timed(getattr(worker, name), phase))
    return seconds


def measure(engine: Any, steps: int, requests: int, prompt_tokens: int, waiting: int) -> dict[str, Any]:
    from ascend_emulator import counters

    decoding = Decoding(engine, requests, prompt_tokens, waiting)
    counters.reset_stats()
    walls, cpus, _ = zip(*decoding.steps(steps), strict=True)
    counted = counters.stats()
    decoding.stop()
    copies = counted["copies"]["host_to_device"]
    return {
        "wall_ms": quantiles_ms(walls)["median"],
        "cpu_ms": quantiles_ms(cpus)["median"],
        "device_ops": (counted["launches_total"] + counted["graph_launches_total"]) / steps,
        "h2d_copies": copies["count"] / steps,
        "h2d_bytes": copies["bytes"] / steps,
    }


if __name__ == "__main__":
    main()
