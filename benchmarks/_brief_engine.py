"""One engine under load, in modelled time: `python _brief_engine.py JOB.json RESULT.json`.

Job:    options (of vllm.LLM), dilation (wall seconds of a modelled second), online and offline (lists of workloads:
        prompts, input_tokens, output_tokens, and concurrency for those online)
Result: startup_s, memory of the host, and for each workload its duration_s, ttft_ms and tpot_ms, all modelled

Requests reach vLLM's engine in this process rather than over HTTP; the engine core and its workers are processes of
their own, as in a server.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.monotonic()
    from vllm import LLM

    engine = LLM(**job["options"]).llm_engine
    result: dict[str, Any] = {"startup_s": time.monotonic() - started, "online": [], "offline": []}
    run(engine, job["dilation"], "warm-up", concurrency=2, prompts=2, input_tokens=256, output_tokens=4)
    for number, workload in enumerate(job["online"]):
        result["online"].append(workload | run(engine, job["dilation"], f"online-{number}", **workload))
        Path(sys.argv[2]).write_text(json.dumps(result))
    for number, workload in enumerate(job["offline"]):
        at_once = {"concurrency": workload["prompts"]}
        result["offline"].append(workload | run(engine, job["dilation"], f"offline-{number}", **workload, **at_once))
        Path(sys.argv[2]).write_text(json.dumps(result))


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
