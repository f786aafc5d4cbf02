"""Runs one step's engine: `python -m ascend_cli.doctor.first_run.engine JOB ANSWERS`, JSON files both.

Job: {"model", "engine": options of vllm.LLM, "rounds": [[name, [numbers of prompts]]]}. Answers: {"rounds": [{number:
{prompt, tokens, positions}}]} or {"failed": why}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ascend_cli.doctor.first_run.steps import LONG_TEXT, LONG_TOKENS, NEW_TOKENS, TEXTS

LIKELIEST = 20


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        answers: dict[str, Any] = {"rounds": run(job)}
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answers = {"failed": f"{type(error).__name__}: {(lines or ['no message'])[0]}"[:400]}
    Path(sys.argv[2]).write_text(json.dumps(answers))
    sys.stdout.flush()
    os._exit(0)  # process groups are torn down in an order that vLLM trips over


def run(job: dict[str, Any]) -> list[dict[int, Any]]:
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(job["model"], **job["engine"])
    longest = llm.llm_engine.model_config.max_model_len - NEW_TOKENS
    prompts = token_ids(llm.get_tokenizer(), longest)
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=LIKELIEST)
    answered = []
    for _, numbers in job["rounds"]:
        outputs = llm.generate(
            [TokensPrompt(prompt_token_ids=prompts[number]) for number in numbers], sampling, use_tqdm=False
        )
        answered.append({number: answer(output) for number, output in zip(numbers, outputs, strict=True)})
    return answered


def token_ids(tokenizer: Any, longest: int) -> list[list[int]]:
    """The prompts, short ones first; of the long ones each begins elsewhere, so that no prefix is shared."""
    prompts = [tokenizer.encode(text)[:longest] for text in TEXTS]
    words = tokenizer.encode(LONG_TEXT * (LONG_TOKENS // 12))
    for number in range(3):
        prompts.append(words[number * 7 : number * 7 + min(LONG_TOKENS, longest)])
    return prompts


def answer(output: Any) -> dict[str, Any]:
    first = output.outputs[0]
    positions = [{str(token): entry.logprob for token, entry in each.items()} for each in first.logprobs]
    return {"prompt": list(output.prompt_token_ids), "tokens": list(first.token_ids), "positions": positions}


if __name__ == "__main__":
    main()
