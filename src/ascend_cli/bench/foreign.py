"""Results that other tools wrote, as rows: vLLM's own JSON (`--save-result`) and the table that it prints.

They say neither chip nor size, and count tokens as the client meant them; rows made of them say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ascend_cli.bench.results import Latency, Row, Run, Workload
from ascend_cli.bench.vllm_bench import parse_serve
from ascend_cli.errors import AscendError, UsageError

NOTE = "made of a result of vLLM's own: lengths are the means of what the client counted"
UNKNOWN = {"chip": "unknown", "tensor_parallel_size": "unknown", "weight_format": "unknown"}
TITLE = "Serving Benchmark Result"
LINE = re.compile(r"^\s*([A-Z][^:\n]*?):\s+(-?[\d.]+|inf|nan)\s*$", re.MULTILINE)


def rows_of(file: Path) -> list[Row] | None:
    """Rows of a file that vLLM wrote or printed; None for any other. Raises UsageError for a spoiled one."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        document = json.loads(text)
    except OSError:
        return None
    except (ValueError, RecursionError):
        return rows_of_tables(text, file) if TITLE in text else None
    return [row_of_json(document, file)] if is_vllm_json(document) else None


def is_vllm_json(document: object) -> bool:
    return isinstance(document, dict) and {"duration", "completed", "total_input_tokens"} <= document.keys()


def row_of_json(document: Mapping[str, Any], file: Path) -> Row:
    """A row of the JSON that `vllm bench serve --save-result` writes. Raises UsageError where a figure is missing."""
    try:
        run = parse_serve(document)
        prompts = int(document.get("num_prompts") or run.completed + run.failed)
        concurrency = document.get("max_concurrency")
        rate = float(document.get("request_rate") or "inf")
        return _row(
            str(document.get("model_id") or file.stem),
            run,
            prompts,
            int(concurrency) if concurrency else None,
            rate if 0 < rate < float("inf") else None,
            str(document.get("date") or ""),
        )
    except (AscendError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{file} is a result of vLLM that cannot be read ({error}): run the benchmark again"
        ) from error


def rows_of_tables(text: str, file: Path) -> list[Row]:
    """A row a printed table; the file's name is the model's, which a table does not name. Raises UsageError."""
    found = []
    for table in re.split(rf"={{3,}}\s*{TITLE}\s*={{3,}}", text)[1:]:
        figures = {name.strip(): float(value) for name, value in LINE.findall(table.split("=" * 20)[0])}
        try:
            run = _run(figures)
        except KeyError as error:
            raise UsageError(f"{file}: a table lacks {error}: give the whole table that vLLM printed") from error
        concurrency = figures.get("Maximum request concurrency")
        rate = figures.get("Request rate configured (RPS)", float("inf"))
        prompts = run.completed + run.failed
        level = int(concurrency) if concurrency else None
        found.append(_row(file.stem, run, prompts, level, rate if 0 < rate < float("inf") else None, ""))
    if not found:
        raise UsageError(f"{file} holds no result known here: give one of `ascend bench`, or of `vllm bench serve`")
    return found


def _run(figures: Mapping[str, float]) -> Run:
    def latency(short: str) -> Latency | None:
        names = [f"{statistic} {short} (ms)" for statistic in ("Mean", "Median", "P99")]
        return Latency(*(figures[name] for name in names)) if all(name in figures for name in names) else None

    return Run(
        duration_s=figures["Benchmark duration (s)"],
        completed=int(figures["Successful requests"]),
        failed=int(figures.get("Failed requests", 0)),
        input_tokens=int(figures["Total input tokens"]),
        output_tokens=int(figures["Total generated tokens"]),
        ttft_ms=latency("TTFT"),
        tpot_ms=latency("TPOT"),
        itl_ms=latency("ITL"),
        peak_output_tokens_per_s=figures.get("Peak output token throughput (tok/s)"),
        peak_concurrency=figures.get("Peak concurrent requests"),
    )


def _row(model: str, run: Run, prompts: int, concurrency: int | None, request_rate: float | None, created: str) -> Row:
    each = max(run.completed, 1)
    workload = Workload(
        round(run.input_tokens / each), round(run.output_tokens / each), max(prompts, 1), concurrency, request_rate
    )
    refused = f"{run.completed} of {prompts} requests completed" if run.completed < prompts else None
    return Row(
        "serve",
        model,
        workload,
        (run,),
        clock="unknown",
        created=created,
        notes=(NOTE,),
        refused=refused,
        known_by=dict(UNKNOWN),
    )
