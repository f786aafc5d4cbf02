"""Runs an engine for a test: reads a job as JSON from the file named first, writes what it answered to the second.

A process of its own for each engine, because an engine takes a chip for the life of its process. Job:
    model, options   arguments of vllm.LLM
    rounds           lists of {"prompt": [token ids], "sampling": {arguments of SamplingParams}}, run one after another
Answer: for each round the requests' token ids and logprobs, and the counters of the emulated chip.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the counters are this process's


def answer(output: Any) -> dict[str, Any]:
    completion = output.outputs[0]
    prompt_logprobs = [next(iter(entry.values())).logprob if entry else None for entry in output.prompt_logprobs or []]
    chosen = [step[token].logprob for step, token in zip(completion.logprobs or [], completion.token_ids, strict=False)]
    return {
        "tokens": [list(each.token_ids) for each in output.outputs],
        "text": completion.text,
        "logprobs": chosen,
        "prompt_logprobs": prompt_logprobs,
        "cached_tokens": output.num_cached_tokens,
    }


def main() -> None:
    from ascend_emulator import counters
    from vllm import LLM, SamplingParams, TokensPrompt

    job = json.loads(Path(sys.argv[1]).read_text())
    engine = LLM(job["model"], **job["options"])
    rounds = []
    for requests in job["rounds"]:
        counters.reset_stats()
        outputs = engine.generate(
            [TokensPrompt(prompt_token_ids=request["prompt"]) for request in requests],
            [SamplingParams(**request["sampling"]) for request in requests],
            use_tqdm=False,
        )
        rounds.append({"answers": [answer(output) for output in outputs], "stats": counters.stats()})
    blocks = engine.llm_engine.vllm_config.cache_config.num_gpu_blocks
    Path(sys.argv[2]).write_text(json.dumps({"rounds": rounds, "blocks": blocks}))
    sys.stdout.flush()
    os._exit(0)  # interpreter exit tears the process groups down in an order that vLLM's finaliser trips over


if __name__ == "__main__":
    main()
