"""Decode steps in modelled time: `_formats_engine.py JOBS.json RESULT.json`, an engine for each job.

Job:    options (of vllm.LLM), requests, input_tokens
Result: for each job the first chip's modelled nanoseconds and launches of a decode step, by task

Each engine has a process of its own, forked from this one, which has imported everything and touched no chip.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # for functions that are sent to the workers

FIRST, STEPS = 4, 8  # tokens of a round, and by how many a longer one differs


def main() -> None:
    from vllm import LLM  # noqa: F401

    import ascend_plugin.worker  # noqa: F401

    gc.freeze()
    results = []
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        answer = Path(f"{sys.argv[2]}.{number}")
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(job, answer))
        child.start()
        child.join()
        if child.exitcode != 0:
            sys.exit(f"The engine with {job['options']} ended with {child.exitcode}.")
        results.append(json.loads(answer.read_text()))
    Path(sys.argv[2]).write_text(json.dumps(results))


def _in_child(job: dict[str, Any], answer: Path) -> None:
    answer.write_text(json.dumps(_run(job)))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit tears the process groups down in an order that vLLM's finalizer trips over


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM

    llm = LLM(**job["options"])
    _round(llm, job, FIRST)
    first, longer = _round(llm, job, FIRST), _round(llm, job, FIRST + STEPS)
    return {
        kind: {name: (value - first[kind].get(name, 0)) / STEPS for name, value in longer[kind].items()}
        for kind in longer
    }


def _round(llm: Any, job: dict[str, Any], new_tokens: int) -> dict[str, dict[str, int]]:
    from vllm import SamplingParams, TokensPrompt

    prompt = [7 + position % 900 for position in range(job["input_tokens"])]
    llm.collective_rpc(_reset)
    llm.generate(
        [TokensPrompt(prompt_token_ids=prompt) for _ in range(job["requests"])],
        SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    counts: dict[str, dict[str, int]] = llm.collective_rpc(_count)[0]
    return counts


def _reset(worker: Any) -> None:
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    counters.reset_stats()


def _count(worker: Any) -> dict[str, dict[str, int]]:
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    stats = counters.stats()
    launches: dict[str, int] = dict(stats["graph_launches"])
    for name, value in stats["launches"].items():
        launches[name] = launches.get(name, 0) + value
    return {"modeled_ns": stats["modeled_ns"], "launches": launches}


if __name__ == "__main__":
    main()
