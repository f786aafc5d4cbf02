"""One engine under load, in modelled time: `python _published_engine.py JOB.json RESULT.json`.

Job:    options (of vllm.LLM), dilation (wall seconds of a modelled second), kind (online, offline) and workloads
        (prompts, input_tokens, output_tokens, and concurrency for those online)
Result: startup_s, the steps' modelled time by task (see measure_steps), and each workload with its duration_s, ttft_ms
        and tpot_ms, all modelled

Online, the engine has a server's defaults; requests reach it in this process rather than over HTTP. The engine core and
its workers are processes of their own, as in a server.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

STEP_INPUT, STEP_OUTPUTS = 256, (1, 4, 12)  # tokens, of requests that differ by a prefill and by eight decode steps


def main() -> None:
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # so that the counters of the worker's process can be read
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.monotonic()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    online = job["kind"] == "online"
    context = UsageContext.OPENAI_API_SERVER if online else UsageContext.LLM_CLASS
    engine = LLMEngine.from_engine_args(EngineArgs(**job["options"]), usage_context=context)
    step_tokens = engine.vllm_config.scheduler_config.max_num_batched_tokens
    result: dict[str, Any] = {"startup_s": time.monotonic() - started, "step_tokens": step_tokens, job["kind"]: []}
    dilation = job["dilation"]
    run(engine, dilation, "warm-up", concurrency=2, prompts=2, input_tokens=STEP_INPUT, output_tokens=4)
    result["steps"] = measure_steps(engine, dilation)
    for number, workload in enumerate(job["workloads"]):
        at_once = {} if online else {"concurrency": workload["prompts"]}
        measured = run(engine, dilation, f"{job['kind']}-{number}", **workload, **at_once)
        result[job["kind"]].append(workload | measured)
        Path(sys.argv[2]).write_text(json.dumps(result))


def measure_steps(engine: Any, dilation: float) -> dict[str, dict[str, float]]:
    """Modelled milliseconds that the first chip is busy, by task: a step of 256 tokens of a prompt, a decode step.

    What the chip is charged for does not depend on the host, so these figures are the same on a busy machine; only a
    collective also counts the time that it waits for its last rank.
    """
    totals = []
    for outputs in STEP_OUTPUTS:
        engine.collective_rpc(_reset_counters)
        run(
            engine,
            dilation,
            f"step-{outputs}",
            concurrency=1,
            prompts=1,
            input_tokens=STEP_INPUT,
            output_tokens=outputs,
        )
        totals.append(engine.collective_rpc(_modeled_ns)[0])
    prefill, short, long = totals
    steps = STEP_OUTPUTS[2] - STEP_OUTPUTS[1]
    decode = {name: (ns - short.get(name, 0)) / steps for name, ns in long.items()}
    return {
        kind: {name: ns / 1e6 for name, ns in by_task.items() if ns}
        for kind, by_task in (("prefill", prefill), ("decode", decode))
    }


def _reset_counters(worker: Any) -> None:
    from ascend_emulator import counters

    counters.reset_stats()


def _modeled_ns(worker: Any) -> dict[str, int]:
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.synchronize()
    modeled: dict[str, int] = counters.stats()["modeled_ns"]
    return modeled


def run(
    engine: Any, dilation: float, name: str, *, concurrency: int, prompts: int, input_tokens: int, output_tokens: int
) -> dict[str, Any]:
    """A closed loop: `concurrency` requests at once until `prompts` are done. Raises if a token is missing."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=output_tokens, ignore_eos=True, detokenize=False)
    arrivals: dict[str, float] = {}
    firsts: dict[str, float] = {}
    lasts: dict[str, float] = {}

    def add() -> None:
        number = len(arrivals)
        prompt = [(7 * number + 13 * position) % 1000 + 10 for position in range(input_tokens)]
        arrivals[f"{name}-{number}"] = time.perf_counter()
        engine.add_request(f"{name}-{number}", {"prompt_token_ids": prompt}, sampling)

    for _ in range(min(concurrency, prompts)):
        add()
    while len(lasts) < prompts:
        outputs = engine.step()
        now = time.perf_counter()
        for output in outputs:
            firsts.setdefault(output.request_id, now)
            if not output.finished:
                continue
            if len(output.outputs[0].token_ids) != output_tokens:
                raise RuntimeError(f"{output.request_id} has {len(output.outputs[0].token_ids)} of {output_tokens}.")
            lasts[output.request_id] = now
            if len(arrivals) < prompts:
                add()
    ttft = [firsts[request] - arrivals[request] for request in arrivals]
    tpot = [(lasts[request] - firsts[request]) / max(output_tokens - 1, 1) for request in arrivals]
    return {
        "duration_s": (max(lasts.values()) - min(arrivals.values())) / dilation,
        "ttft_ms": statistics.median(ttft) * 1e3 / dilation,
        "tpot_ms": statistics.median(tpot) * 1e3 / dilation,
    }


if __name__ == "__main__":
    main()
