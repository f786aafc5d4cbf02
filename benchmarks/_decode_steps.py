"""One engine from the start of its process to steady decoding: `python _decode_steps.py JOB.json`, then lines on stdin.

Runs under either side's Python, so it imports nothing of this repository but the emulator's counters, and uses what
vLLM 0.29 and 0.32 have in common. The engine is in this process, because the counters are.

Job:       options (of vllm.LLM), prompt_tokens, answers (a file descriptor, for a line of JSON in answer to each line)
At first:  startup_s, import_s, startup_cpu_s, startup (counters), versions, kv_blocks, graph_sizes
Questions: {"decode": requests} begins, {"steps": count} answers walls_s, cpus_s and processes_s of its steps,
           {"stop": true} ends what was begun and answers its counters
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

from _steady_state import Decoding  # noqa: E402 - beside this file, whichever Python runs it


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(job["answers"], "w", buffering=1)
    started = time.monotonic()
    from vllm import LLM

    imported_s = time.monotonic() - started
    engine = LLM(**job["options"]).llm_engine
    ready_s = STARTED + time.monotonic() - started
    from ascend_emulator import counters

    ready = {
        "versions": {name: importlib.metadata.version(name) for name in ("vllm", "torch", "torch_npu")},
        "import_s": imported_s,
        "startup_s": ready_s,
        "startup_cpu_s": time.process_time(),
        "startup": counters.stats(),
        "kv_blocks": engine.vllm_config.cache_config.num_gpu_blocks,
        "graph_sizes": engine.vllm_config.compilation_config.cudagraph_capture_sizes,
    }
    print(json.dumps(ready), file=answers)
    decoding: Decoding | None = None
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any] = {}
        if "decode" in question:
            decoding = Decoding(engine, question["decode"], job["prompt_tokens"])
            counters.reset_stats()
        elif decoding is None:
            raise ValueError(f"{question} came before a question that starts decoding.")
        elif "steps" in question:
            walls, cpus, processes = zip(*decoding.steps(question["steps"]), strict=True)
            answer = {"walls_s": walls, "cpus_s": cpus, "processes_s": processes}
        else:
            answer = counters.stats()
            decoding.stop()
        print(json.dumps(answer), file=answers)
    os._exit(0)  # interpreter exit would tear process groups down for seconds


if __name__ == "__main__":
    main()
