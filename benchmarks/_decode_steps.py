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
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from _steady_state import Decoding, quantiles_ms  # noqa: E402 - beside this file, whichever Python runs it


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

    decoding = Decoding(engine, requests, prompt_tokens)
    counters.reset_stats()
    walls, cpus, processes = zip(*decoding.steps(steps), strict=True)
    measured = counters.stats()
    decoding.stop()
    return {
        "steps": steps,
        "wall_ms": quantiles_ms(walls),
        "engine_thread_cpu_ms": quantiles_ms(cpus),
        "process_cpu_ms": quantiles_ms(processes),
        "counters": measured,
    }


if __name__ == "__main__":
    main()
