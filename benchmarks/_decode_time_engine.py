"""One engine of one side: `python _decode_time_engine.py JOB.json RESULT.json`; see decode_time.py.

Imports nothing of this repository but the emulator's counters: the plugin is that of whichever checkout runs it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # for functions that are sent to the workers

STEPS = 8  # that two rounds differ by


def main() -> None:
    from vllm import LLM

    job = json.loads(Path(sys.argv[1]).read_text())
    llm = LLM(**job["options"])
    found = {str(requests): step_of(llm, requests, job["prompt_tokens"]) for requests in job["requests"]}
    Path(sys.argv[2]).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit would tear process groups down for seconds


def step_of(llm: Any, requests: int, prompt_tokens: int) -> dict[str, float]:
    """What one decode step of so many requests costs the first chip."""
    generate(llm, requests, prompt_tokens, 4)  # what happens once
    first, longer = (generate(llm, requests, prompt_tokens, tokens) for tokens in (4, 4 + STEPS))
    return {name: (longer[name] - first[name]) / STEPS for name in first}


def generate(llm: Any, requests: int, prompt_tokens: int, tokens: int) -> dict[str, float]:
    from vllm import SamplingParams, TokensPrompt

    llm.collective_rpc(reset)
    llm.generate(
        [TokensPrompt(prompt_token_ids=[5 + request] * prompt_tokens) for request in range(requests)],
        SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    counts: dict[str, float] = llm.collective_rpc(count)[0]
    return counts


def reset(worker: Any) -> None:
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    counters.reset_stats()


def count(worker: Any) -> dict[str, float]:
    """What the chip of this worker did since reset(); a collective's time has the wait for the last rank in it."""
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    stats = counters.stats()
    copies, waits, times = stats["copies"], stats["synchronizations"], stats["modeled_ns"]
    return {
        "ms": sum(ns for name, ns in times.items() if not name.startswith("Hccl")) / 1e6,
        "launches": stats["launches_total"] + stats["graph_launches_total"],
        "by the host": stats["launches_total"],
        "copies": copies["host_to_device"]["count"] + copies["device_to_host"]["count"],
        "waits": waits["stream"] + waits["blocking_copy"],
    }


if __name__ == "__main__":
    main()
