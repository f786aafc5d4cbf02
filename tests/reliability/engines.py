"""Runs engines on chips that fail as told: reads a list of jobs from the file named first, writes a line for each.

Each job is a fork of this process, which has imported everything and opened no chip. Job: {"model", "options" of
vllm.LLM, "faults" (a document, written to the file that the chips read when they are first used), "prompts" (lists of
token ids), "tokens", "limit_s"}. A fault may give "part" instead of "nth": 0 for the first of the
allocations or launches that job 0 made, 1 for the last.

Answer: {"ended": "finished" | "raised" | "killed by a signal" | "hung", "error": text, "kind": type, "tokens": lists,
"made": {"allocation": number, "launch": number}}.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")


def run(job: dict[str, Any]) -> dict[str, Any]:
    from ascend_emulator import counters
    from vllm import LLM, SamplingParams, TokensPrompt

    engine = LLM(job["model"], **job["options"])
    prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt in job["prompts"]]
    sampling = SamplingParams(max_tokens=job["tokens"], temperature=0, ignore_eos=True)
    outputs = engine.generate(prompts, sampling, use_tqdm=False)
    made = {}
    with suppress(counters.NotEmulated):  # several chips are several other processes'
        stats = counters.stats()
        made["allocation"] = stats["memory"]["allocations"]
        made["launch"] = stats["launches_total"] + stats["graph_launches_total"]
    return {"tokens": [list(output.outputs[0].token_ids) for output in outputs], "made": made}


def child(job: dict[str, Any], result: Path, log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    found: dict[str, Any]
    try:
        found = {"ended": "finished", "error": "", "kind": ""} | run(job)
    except BaseException as error:
        traceback.print_exc()
        found = {"ended": "raised", "error": str(error), "kind": type(error).__name__, "tokens": []}
    result.write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def placed(fault: dict[str, Any], made: dict[str, int]) -> dict[str, Any]:
    """A fault with a number where it had a part of what an engine without faults made."""
    if "part" not in fault:
        return fault
    last = made["allocation" if fault["kind"] == "allocation" else "launch"]
    rest = {name: value for name, value in fault.items() if name != "part"}
    return rest | {"nth": 1 + round(fault["part"] * (last - 1))}


def main() -> None:
    from vllm import LLM  # noqa: F401

    import ascend_plugin.worker  # noqa: F401

    gc.freeze()
    folder = Path(sys.argv[2])
    made: dict[str, int] = {}
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        result, log = folder / f"{number}.json", folder / f"{number}.log"
        faults = job["faults"] | {"faults": [placed(fault, made) for fault in job["faults"]["faults"]]}
        Path(os.environ["ASCEND_EMULATOR_FAULTS"]).write_text(json.dumps(faults))
        process = multiprocessing.get_context("fork").Process(target=child, args=(job, result, log))
        process.start()
        process.join(job["limit_s"])
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        if not result.is_file():
            ended = "hung" if hung else "killed by a signal"
            answer = {"ended": ended, "error": str(process.exitcode), "kind": "", "tokens": []}
            result.write_text(json.dumps(answer))
        made = made or json.loads(result.read_text()).get("made", {})


if __name__ == "__main__":
    main()
