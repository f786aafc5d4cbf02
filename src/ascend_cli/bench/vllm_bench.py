"""Running `vllm bench` and reading what it writes, in the shapes of vLLM 0.33."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ascend_cli.bench.results import Latency, Request, Run, Workload
from ascend_cli.errors import AscendError, UsageError
from ascend_cli.hardware.vllm import INSTALL, vllm_command

LAST_LINES = 15
KEPT_BYTES = 8192
PERCENTILE_FLAG = "--metric-percentiles"


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
    return [*command, *with_p99(flags)]


def with_p99(flags: Sequence[str]) -> list[str]:
    """The user's flags with the 99th percentile among the percentiles, which a row is made of."""
    words = list(flags)
    for index, word in enumerate(words):
        name, separator, value = word.partition("=")
        if name.replace("_", "-") != PERCENTILE_FLAG:
            continue
        if separator and "99" not in value.split(","):
            words[index] = f"{word},99"
        elif not separator and index + 1 < len(words) and "99" not in words[index + 1].split(","):
            words[index + 1] += ",99"
    return words


def run_throughput(
    model: str, workload: Workload, flags: Sequence[str], environment: Mapping[str, str] | None = None
) -> Run:
    """One offline run. Raises AscendError with vLLM's last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="ascend-bench-") as folder:
        output = Path(folder) / "throughput.json"
        printed = _call(throughput_command(model, workload, output, flags), environment)
        return parse_throughput(_document(output), printed)


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
        return parse_serve(_document(output))


def _call(command: list[str], environment: Mapping[str, str] | None) -> str:
    """Run a command, its standard error (progress bars) passed on as it comes; its standard output comes back."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started ({error.strerror}): {INSTALL}") from error
    last = bytearray()
    reader = threading.Thread(target=_pass_on, args=(process.stderr, last), daemon=True)
    with process:  # which closes both pipes
        reader.start()
        try:
            assert process.stdout is not None
            printed = process.stdout.read().decode("utf-8", errors="replace")
            return_code = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            reader.join(timeout=5)
    if return_code:
        told = printed + bytes(last).decode("utf-8", errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", told) if line.strip()]
        sys.stderr.write("\n".join(printed.strip().splitlines()[-LAST_LINES:]) + "\n")
        reason = lines[-1] if lines else "no output"
        raise AscendError(f"`vllm bench` failed with exit code {return_code}: {reason[:300]}")
    return printed


def _pass_on(stream: IO[bytes] | None, last: bytearray) -> None:
    """Copy a stream to standard error at once, keeping its end."""
    assert stream is not None
    while chunk := os.read(stream.fileno(), 4096):
        last += chunk
        del last[:-KEPT_BYTES]
        try:
            sys.stderr.write(chunk.decode("utf-8", errors="replace"))
            sys.stderr.flush()
        except (OSError, ValueError):
            continue  # standard error was closed: the child must not block on a full pipe


def _document(file: Path) -> dict[str, Any]:
    """A result file of vLLM. Raises AscendError if it wrote none, or another."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AscendError(f"`vllm bench` left no result that can be read ({error}): see what it printed") from error
    if not isinstance(document, dict):
        raise AscendError("`vllm bench` left a result of another form: this release reads vLLM 0.32's and 0.33's")
    return document


def parse_throughput(document: Mapping[str, Any], printed: str) -> Run:
    """A run from --output-json and the printed totals, which alone divide prompt from output tokens."""
    prompt = re.search(r"Total num prompt tokens:\s+(\d+)", printed)
    output = re.search(r"Total num output tokens:\s+(\d+)", printed)
    if prompt is None or output is None:
        raise AscendError("`vllm bench throughput` printed no token totals: this release reads those of vLLM 0.33")
    try:
        return Run(
            duration_s=float(document["elapsed_time"]),
            completed=int(document["num_requests"]),
            failed=0,
            input_tokens=int(prompt[1]),
            output_tokens=int(output[1]),
            input_tokens_from="engine",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AscendError(f"the result of `vllm bench throughput` lacks or spoils {error}") from error


def parse_serve(document: Mapping[str, Any]) -> Run:
    """A run from the JSON of --save-result --save-detailed. Raises AscendError where a figure is missing."""
    try:
        return _run_of(document)
    except (KeyError, TypeError, ValueError) as error:
        raise AscendError(f"the result of `vllm bench serve` lacks or spoils {error}") from error


def _run_of(document: Mapping[str, Any]) -> Run:
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
    if document.get(f"mean_{metric}_ms") is None:
        return None
    mean, median, p99 = (float(document[f"{statistic}_{metric}_ms"]) for statistic in ("mean", "median", "p99"))
    return Latency(mean, median, p99, std=float(document.get(f"std_{metric}_ms") or 0.0))


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
