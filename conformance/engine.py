"""vLLM on one machine, real or emulated: start one engine on a checkpoint, run the checks, hand back what it answered.

A process of its own (`python -m conformance.engine JOB.json`), because an engine owns its device. The job:

    checkpoint  directory     task  generate | embed | classify | token_classify     engine  vLLM's engine arguments
    whole, chunked  prompts (token ids, or with media, see media.py): prefilled in one step, in several
    new_tokens  decode steps     media  whether prompts have any
    output  .npz to write     report  .json to write     adapters  folders of LoRA adapters

The report's `outcome` is "ran", "refused" (at start, with a reason) or "failed"; `message` says why. For each answered
prompt the .npz has `<check>.<index>.tokens` and `.rows`, with `.first` the index of the first token whose successor is
predicted by rows[0]: [positions, vocabulary] log-probabilities, or [1, width] when pooling. With adapters, prompts take
turns: none, the first, the second, none ...; `.adapter` is the number.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from conformance import media

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput

Rows = dict[str, np.ndarray]
OURS = ("ascend_plugin", "ascend_facts")  # the packages that refuse what no chip runs


def run(job: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
    from vllm.engine.arg_utils import EngineArgs

    arguments = {"model": job["checkpoint"], "skip_tokenizer_init": True, "disable_log_stats": False, **job["engine"]}
    if job["task"] == "generate":
        arguments |= {"max_logprobs": -1, "skip_tokenizer_init": not job.get("media")}
    else:
        # vLLM 0.32 starts no pooling model without a tokenizer, though the prompts are token ids.
        arguments |= {"runner": "pooling", "skip_tokenizer_init": False, "tokenizer": write_tokenizer(job)}
    try:
        # Whatever a person could have got wrong is found here, before a device is touched.
        configuration = EngineArgs(**arguments).create_engine_config()
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        outcome = "refused" if is_refusal(error, "vllm", *OURS) else "failed"
        return {"outcome": outcome, "message": one_line(error), "versions": versions()}, {}
    report: dict[str, Any] = {
        "dtype": str(configuration.model_config.dtype).removeprefix("torch."),
        "block_size": configuration.cache_config.block_size,
        "graphs": configuration.compilation_config.cudagraph_mode.name,
        "versions": versions(),
    }
    report["rounding"] = rounding_of(report["dtype"])
    started = False
    try:
        from vllm import LLM

        llm = LLM(**arguments)
        started = True
        rows, cached_tokens = _answers(llm, job)
        report["drafted_tokens"], report["accepted_tokens"] = drafts(llm)
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        outcome = "refused" if not started and is_refusal(error, *OURS) else "failed"
        return {**report, "outcome": outcome, "message": one_line(error)}, {}
    return {**report, "outcome": "ran", "message": "", "cached_tokens": cached_tokens}, rows


def rounding_of(dtype: str) -> str:
    """In which of the reference's dtypes a model's rounding on this machine is measured (see reference.py)."""
    from ascend_plugin import detection

    rounded = dtype == "float32" and detection.current_chip().rounds_float32_products
    return "float16 products" if rounded else dtype


def write_tokenizer(job: dict[str, Any]) -> str:
    """A folder beside the output with a tokenizer that has a word for each token of the checkpoint's vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    size = json.loads((Path(job["checkpoint"]) / "config.json").read_text())["vocab_size"]
    words = {str(token): token for token in range(size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="0"))
    folder = Path(job["output"]).with_name("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="0", pad_token="0").save_pretrained(folder)
    return str(folder)


def is_refusal(error: BaseException, *packages: str) -> bool:
    """Whether code of these packages raised this to say that something cannot be; a crash inside them is none."""
    if isinstance(error, pydantic.ValidationError):  # the validator's own error is inside
        errors = [entry.get("ctx", {}).get("error") for entry in error.errors()]
        return all(inner is None or is_refusal(inner, *packages) for inner in errors)
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    raised_there = last and (last.line or "").startswith("raise ") and set(packages) & set(Path(last.filename).parts)
    return bool(raised_there) and isinstance(error, ValueError | NotImplementedError)


def _answers(llm: LLM, job: dict[str, Any]) -> tuple[Rows, int]:
    if job["task"] != "generate":
        return _pool(llm, job), 0
    rows: Rows = {}
    for check, prompts in (("whole", job["whole"]), ("chunked", job["chunked"])):
        if prompts:
            outputs = _generate(llm, job, prompts, prompt_logprobs=-1)
            _collect(rows, check, outputs, with_prompt=True)
    # Asking for the prompt's log-probabilities makes vLLM compute the whole prompt: ask without, to meet the cache.
    again = _generate(llm, job, job["chunked"] or job["whole"], prompt_logprobs=None)
    _collect(rows, "again", again, with_prompt=False)
    return rows, sum(output.num_cached_tokens or 0 for output in again)


def _generate(llm: LLM, job: dict[str, Any], prompts: list[Any], prompt_logprobs: int | None) -> list[RequestOutput]:
    from vllm import SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    adapters: list[Any] = [  # vLLM takes None for a prompt without one, which its annotation leaves out
        None,
        *(LoRARequest(Path(path).name, n, path) for n, path in enumerate(job.get("adapters", ()), start=1)),
    ]
    parameters = SamplingParams(
        temperature=0.0,
        max_tokens=job["new_tokens"],
        ignore_eos=True,
        logprobs=-1,
        prompt_logprobs=prompt_logprobs,
        flat_logprobs=True,
        detokenize=False,
    )
    given: list[Any] = [
        media.for_engine(prompt) if isinstance(prompt, dict) else TokensPrompt(prompt_token_ids=prompt)
        for prompt in prompts
    ]
    return llm.generate(
        given,
        parameters,
        use_tqdm=False,
        lora_request=[adapters[index % len(adapters)] for index in range(len(prompts))],
    )


def _collect(rows: Rows, check: str, outputs: list[RequestOutput], with_prompt: bool) -> None:
    for index, output in enumerate(outputs):
        prompt, generated = list(output.prompt_token_ids or ()), list(output.outputs[0].token_ids)
        distributions = [dense(output.outputs[0].logprobs)]
        if with_prompt and len(prompt) > 1:
            distributions.insert(0, dense(output.prompt_logprobs))
        first = 0 if len(distributions) == 2 else len(prompt) - 1
        rows[f"{check}.{index}.tokens"] = np.array(prompt + generated)
        rows[f"{check}.{index}.first"] = np.array(first)
        rows[f"{check}.{index}.prompt"] = np.array(len(prompt))
        rows[f"{check}.{index}.adapter"] = np.array(output.lora_request.lora_int_id if output.lora_request else 0)
        rows[f"{check}.{index}.rows"] = np.concatenate(distributions)


def dense(logprobs: Any) -> np.ndarray:
    """[positions, vocabulary] of vLLM's flat log-probabilities; a position without any (the first token) is left out.

    A position lists the chosen token first and then every token, so the chosen one comes twice.
    """
    spans = [(a, b) for a, b in zip(logprobs.start_indices, logprobs.end_indices, strict=True) if b > a]
    tokens, values = np.array(logprobs.token_ids), np.array(logprobs.logprobs, dtype=np.float32)
    vocabulary = int(tokens.max()) + 1
    table = np.full((len(spans), vocabulary), np.nan, dtype=np.float32)
    for row, (start, end) in enumerate(spans):
        table[row, tokens[start:end]] = values[start:end]
    if np.isnan(table).any():
        raise ValueError("The engine answered with log-probabilities that are missing or not a number.")
    return table


def _pool(llm: LLM, job: dict[str, Any]) -> Rows:
    from vllm import PoolingParams, TokensPrompt

    # The number that a classifier computes, not its squashed form, in which a large error can hide.
    parameters = PoolingParams(use_activation=job["task"] == "embed")
    prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt in job["whole"]]
    outputs = llm.encode(prompts, pooling_params=parameters, pooling_task=job["task"], use_tqdm=False)
    rows: Rows = {}
    for index, (prompt, output) in enumerate(zip(job["whole"], outputs, strict=True)):
        rows[f"whole.{index}.tokens"] = np.array(prompt)
        rows[f"whole.{index}.first"] = np.array(0)
        rows[f"whole.{index}.prompt"] = np.array(len(prompt))
        rows[f"whole.{index}.rows"] = output.outputs.data.float().numpy().reshape(1, -1)
    return rows


def drafts(llm: LLM) -> tuple[int, int]:
    """How many tokens were drafted by speculation, and how many of them accepted."""
    counts = {metric.name: int(metric.value) for metric in llm.get_metrics() if hasattr(metric, "value")}
    names = ("vllm:spec_decode_num_draft_tokens", "vllm:spec_decode_num_accepted_tokens")
    drafted, accepted = (counts.get(name, 0) for name in names)
    return drafted, accepted


def versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("vllm", "torch", "torch_npu", "transformers")}


def one_line(error: BaseException) -> str:
    """The error's own sentence: pydantic and vLLM wrap it in lines of context."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("1 validation error", "For further information"))]
    text = " ".join(useful) or type(error).__name__
    return text.split(" [type=")[0].removeprefix("Value error, ")[:400]


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process less to start
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")  # ranks need not import again; no device is open yet
    report, rows = run(job)
    np.savez(job["output"], allow_pickle=False, **rows)
    with open(job["report"], "w") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
