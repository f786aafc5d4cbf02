"""Did the benchmark measure what was asked? Tokens really processed against tokens requested, or the run is refused.

An operator's `--input-len 256` ran 1,024 tokens a prompt, and the figures were published: vLLM reads the random
data set's own option, whose default is 1024, and ignores the general one.
"""

from __future__ import annotations

from ascend_cli.bench.results import Run, Workload

VLLM_RANDOM_INPUT_DEFAULT = 1024
TEMPLATE_TOKENS = 96  # most that a chat template adds to a prompt: system text and role marks
NOT_AUDITED = (
    "TOKENS NOT AUDITED: the server shows no counters at /metrics, so the prompts' tokens are what the client meant to "
    "send; let this machine reach /metrics"
)
TOLERANCE = 0.02  # random prompts are text, and tokenize back to a few tokens more or less


def audit(workload: Workload, run: Run, is_chat: bool) -> str | None:
    """Why a run must not be used, naming the cause; None if it measured what was asked."""
    if run.failed or run.completed != workload.prompts:
        return f"{run.completed} of {workload.prompts} requests completed, {run.failed} failed: see the server's log"
    asked_in, asked_out = workload.prompts * workload.input_tokens, workload.prompts * workload.output_tokens
    slack = workload.prompts * (TEMPLATE_TOKENS if is_chat else 1)
    low, high = asked_in * (1 - TOLERANCE), asked_in * (1 + TOLERANCE) + slack
    if not low <= run.input_tokens <= high:
        each = run.input_tokens / workload.prompts
        found = f"{each:,.0f} input tokens a prompt were processed, {workload.input_tokens:,} were asked for"
        return f"{found}: {_input_cause(each, workload)}"
    if run.output_tokens != asked_out:
        each = run.output_tokens / workload.prompts
        found = f"{each:,.1f} output tokens an answer were generated, {workload.output_tokens:,} were asked for"
        return f"{found}: {_output_cause(each, workload)}"
    return None


def _input_cause(each: float, workload: Workload) -> str:
    if abs(each - VLLM_RANDOM_INPUT_DEFAULT) <= VLLM_RANDOM_INPUT_DEFAULT * TOLERANCE:
        return (
            "vLLM used --random-input-len, whose default is 1024, and ignored --input-len; pass --random-input-len, "
            "or let `ascend bench` do it"
        )
    if each > workload.input_tokens:
        return "a longer chat template or another data set was used; check --dataset-name and --random-prefix-len"
    return "prompts were cut: check --max-model-len of the server, and that client and server share a tokenizer"


def _output_cause(each: float, workload: Workload) -> str:
    if each < workload.output_tokens:
        return "answers ended early: the end-of-text token was not ignored, or --max-model-len cut them"
    return "the server generated more than one answer a prompt; check --n"
