"""One engine that measures on demand: `python _throughput_engine.py JOB.json`, then requests on stdin, one line each.

Runs under either side's Python. A line is JSON: {"decode": requests} or {"prefill": tokens}; the answer is a line of
JSON on the last file descriptor that was free at the start (stdout belongs to vLLM's log): {"tokens_per_s": number}.

Job:    options (of vllm.LLM), prompt_tokens and steps (of a decode), answers (the file descriptor)
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from _steady_state import Decoding, prompt


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(job["answers"], "w", buffering=1)
    from vllm import LLM

    engine = LLM(**job["options"]).llm_engine
    print(json.dumps({"ready": True}), file=answers)
    for number, line in enumerate(sys.stdin):
        question = json.loads(line)
        if "decode" in question:
            rate = decode(engine, question["decode"], job["prompt_tokens"], job["steps"])
        else:
            rate = prefill(engine, question["prefill"], number)
        print(json.dumps({"tokens_per_s": rate}), file=answers)
    os._exit(0)  # interpreter exit would tear process groups down for seconds


def decode(engine: Any, requests: int, prompt_tokens: int, steps: int) -> float:
    """Tokens a second of all requests together, from the median step."""
    decoding = Decoding(engine, requests, prompt_tokens)
    walls = [wall for wall, _, _ in decoding.steps(steps)]
    decoding.stop()
    step_s: float = statistics.median(walls)
    return requests / step_s


def prefill(engine: Any, tokens: int, number: int) -> float:
    """Prompt tokens a second, from the request's arrival to its first token."""
    from vllm import SamplingParams

    once = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False)
    started = time.perf_counter()
    engine.add_request(f"prefill-{number}", {"prompt_token_ids": prompt(tokens, number)}, once)
    while engine.has_unfinished_requests():
        engine.step()
    return tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
