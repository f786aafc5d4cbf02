"""Running `vllm bench` and reading what it writes, in the shapes of vLLM 0.33."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ascend_cli.bench.results import Latency, Request, Run, Workload
from ascend_cli.errors import AscendError
from ascend_cli.hardware.vllm import vllm_command

LAST_LINES = 15


def throughput_command(model: str, workload: Workload, output: Path, flags: Sequence[str]) -> list[str]:
    """`vllm bench throughput` on random prompts, by the options that its random data set really reads."""
    return [
        *(vllm_command(), "bench", "throughput", "--model", model, "--dataset-name", "random"),
        *("--random-input-len", str(workload.input_tokens), "--random-output-len", str(workload.output_tokens)),
        *("--random-range-ratio", "0", "--num-prompts", str(workload.prompts), "--output-json", str(output), *flags),
    ]


def serve_command(
    target: Mapping[str, str],
    workload: Workload,
    output: Path,
    warm_up: int,
    seed: int,
    is_chat: bool,
    flags: Sequence[str],
) -> list[str]:
    """`vllm bench serve` against a running server; `target` gives url, model and tokenizer."""
    endpoint = ("openai-chat", "/v1/chat/completions") if is_chat else ("openai", "/v1/completions")
    command = [
        *(vllm_command(), "bench", "serve", "--base-url", target["url"], "--model", target["model"]),
        *("--tokenizer", target["tokenizer"], "--backend", endpoint[0], "--endpoint", endpoint[1]),
        *("--dataset-name", "random", "--random-input-len", str(workload.input_tokens)),
        *("--random-output-len", str(workload.output_tokens), "--random-range-ratio", "0"),
        *("--num-prompts", str(workload.prompts), "--num-warmups", str(warm_up), "--seed", str(seed), "--ignore-eos"),
        *("--save-result", "--save-detailed", "--result-dir", str(output.parent), "--result-filename", output.name),
        *("--temperature", "0"),
    ]
    if workload.concurrency:
        command += ["--max-concurrency", str(workload.concurrency)]
    if workload.request_rate:
        command += ["--request-rate", str(workload.request_rate)]
    return [*command, *flags]


def run_throughput(
    model: str, workload: Workload, flags: Sequence[str], environment: Mapping[str, str] | None = None
) -> Run:
    """One offline run. Raises AscendError with vLLM's last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="ascend-bench-") as folder:
        output = Path(folder) / "throughput.json"
        printed = _call(throughput_command(model, workload, output, flags), environment)
        return parse_throughput(json.loads(output.read_text()), printed)


def run_serve(
    target: Mapping[str, str],
    workload: Workload,
    *,
    warm_up: int = 0,
    seed: int = 0,
    is_chat: bool = True,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Run:
    """One run against a server. Raises AscendError with vLLM's last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="ascend-bench-") as folder:
        output = Path(folder) / "serve.json"
        _call(serve_command(target, workload, output, warm_up, seed, is_chat, flags), environment)
        return parse_serve(json.loads(output.read_text()))


def _call(command: list[str], environment: Mapping[str, str] | None) -> str:
    """Run a command with its progress on standard error; its standard output comes back."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        sys.stderr.write("\n".join(lines[-LAST_LINES:]) + "\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise AscendError(f"`vllm bench` failed with exit code {done.returncode}: {reason[:300]}")
    return done.stdout


def parse_throughput(document: Mapping[str, Any], printed: str) -> Run:
    """A run from --output-json and the printed totals, which alone divide prompt from output tokens."""
    prompt = re.search(r"Total num prompt tokens:\s+(\d+)", printed)
    output = re.search(r"Total num output tokens:\s+(\d+)", printed)
    if prompt is None or output is None:
        raise AscendError("`vllm bench throughput` printed no token totals: this release reads those of vLLM 0.33")
    return Run(
        duration_s=float(document["elapsed_time"]),
        completed=int(document["num_requests"]),
        failed=0,
        input_tokens=int(prompt[1]),
        output_tokens=int(output[1]),
    )


def parse_serve(document: Mapping[str, Any]) -> Run:
    """A run from the JSON of --save-result --save-detailed."""
    requests = tuple(_requests(document))
    return Run(
        duration_s=float(document["duration"]),
        completed=int(document["completed"]),
        failed=int(document.get("failed", 0)),
        input_tokens=int(document["total_input_tokens"]),
        output_tokens=int(document["total_output_tokens"]),
        ttft_ms=_latency(document, "ttft"),
        tpot_ms=_latency(document, "tpot"),
        itl_ms=_latency(document, "itl"),
        peak_output_tokens_per_s=document.get("max_output_tokens_per_s"),
        peak_concurrency=document.get("max_concurrent_requests"),
        requests=requests,
    )


def _latency(document: Mapping[str, Any], metric: str) -> Latency | None:
    if f"mean_{metric}_ms" not in document:
        return None
    return Latency(*(float(document[f"{statistic}_{metric}_ms"]) for statistic in ("mean", "median", "p99", "std")))


def _requests(document: Mapping[str, Any]) -> list[Request]:
    """Per-request times; failed requests have none and are left out."""
    found = []
    starts = document.get("start_times") or []
    origin = min(starts, default=0.0)
    columns = ("ttfts", "itls", "input_lens", "output_lens", "errors")
    for start, ttft, itls, input_tokens, output_tokens, error in zip(
        starts, *(document.get(name) or [] for name in columns), strict=False
    ):
        if error or not output_tokens:
            continue
        decoding_s = sum(itls)
        tpot_ms = 1e3 * decoding_s / (output_tokens - 1) if output_tokens > 1 else 0.0
        latency_ms = 1e3 * (ttft + decoding_s)
        found.append(Request(start - origin, 1e3 * ttft, tpot_ms, latency_ms, int(input_tokens), int(output_tokens)))
    return found
