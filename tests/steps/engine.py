"""Runs the engines of a chip and counts their steps: `engine.py JOB.json RESULT.json`.

Each engine has a process of its own, forked from this one, which has imported everything and touched no chip. Nothing
is computed (clock "timing"): launches, copies, waits and the chip's modelled time do not depend on values.
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

from tests.steps import cases

LATENCY_NAMES = ("Hccl",)  # their modelled time has the wait for the last rank in it, which the host decides


def main() -> None:
    from vllm import LLM  # noqa: F401

    import ascend_plugin.worker  # noqa: F401

    gc.freeze()
    job = json.loads(Path(sys.argv[1]).read_text())
    results: dict[str, Any] = {}
    for number, engine in enumerate(cases.ENGINES):
        if engine.name not in job["engines"]:
            continue
        answer = Path(f"{sys.argv[2]}.{number}")
        child = multiprocessing.get_context("fork").Process(
            target=_in_child, args=(engine, job["checkpoints"][engine.architecture], answer)
        )
        child.start()
        child.join()
        if child.exitcode != 0:
            sys.exit(f"The engine {engine.name!r} ended with {child.exitcode}.")
        results[engine.name] = json.loads(answer.read_text())
    Path(sys.argv[2]).write_text(json.dumps(results))


def _in_child(engine: cases.Engine, checkpoint: str, answer: Path) -> None:
    answer.write_text(json.dumps(_run(engine, checkpoint)))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit tears the process groups down in an order that vLLM's finaliser trips over


def _run(engine: cases.Engine, checkpoint: str) -> dict[str, dict[str, float]]:
    from vllm import LLM

    options = {**cases.OPTIONS, **engine.options, "tensor_parallel_size": engine.ranks}
    llm = LLM(checkpoint, **options)
    counts = {}
    for step in engine.steps:
        _round(llm, step, checkpoint, 4)  # what happens once: masks, tables, first use of a size
        first = _round(llm, step, checkpoint, 4 if step.decodes else 1)
        if step.decodes:
            longer = _round(llm, step, checkpoint, 4 + cases.DECODE_STEPS)
            steps = cases.DECODE_STEPS
            counts[step.name] = {name: (longer[name] - first[name]) / steps for name in longer}
        else:
            counts[step.name] = first
    return counts


def _round(llm: Any, step: cases.Step, checkpoint: str, new_tokens: int) -> dict[str, float]:
    from vllm import SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    adapters = [LoRARequest(f"a{n}", n, f"{checkpoint}/adapter-{n}") for n in range(1, step.adapters + 1)]
    chosen: Any = [adapters[index % len(adapters)] for index in range(step.requests)] if adapters else None
    llm.collective_rpc(reset)
    llm.generate(
        [TokensPrompt(prompt_token_ids=prompt) for prompt in cases.prompts(step)],
        SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False),
        use_tqdm=False,
        lora_request=chosen,
    )
    counts: dict[str, float] = llm.collective_rpc(count)[0]
    return counts


def reset(worker: Any) -> None:
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    counters.reset_stats()


def count(worker: Any) -> dict[str, int]:
    """What the chip of this worker did since reset()."""
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    stats = counters.stats()
    copies, waits = stats["copies"], stats["synchronizations"]
    return {
        "launches": stats["launches_total"] + stats["graph_launches_total"],
        "launches by the host": stats["launches_total"],
        "copies to the chip": copies["host_to_device"]["count"],
        "bytes to the chip": copies["host_to_device"]["bytes"],
        "copies to the host": copies["device_to_host"]["count"],
        "bytes to the host": copies["device_to_host"]["bytes"],
        "waits of the host": waits["stream"] + waits["blocking_copy"],
        "modelled ns": sum(ns for name, ns in stats["modeled_ns"].items() if not name.startswith(LATENCY_NAMES)),
    }


if __name__ == "__main__":
    main()
