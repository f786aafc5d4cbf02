"""guidellm's benchmarks.json or .yaml, of its report schemas 1 and 2 and the releases before them.

Its time_per_output_token counts the first token as well; what vLLM calls TPOT is its inter_token_latency, which leaves
the first token out and is a mean of each request (guidellm, schemas/base/request_stats.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ascend_cli.bench.foreign.row import Spoiled, first_text, foreign_row, latency, number, positive, value, whole
from ascend_cli.bench.results import Latency, Row, Run

TOOL = "guidellm"


def is_mine(document: Any) -> bool:
    found = document.get("benchmarks") if isinstance(document, Mapping) else None
    return isinstance(found, list) and all(
        value(part, "metrics", "time_to_first_token_ms") is not None for part in found
    )


def rows_of(document: Mapping[str, Any], path: Path) -> list[Row]:
    """A row a benchmark. Raises Spoiled."""
    if not document["benchmarks"]:
        raise Spoiled("it holds no benchmark")
    return [_row(document, benchmark, path) for benchmark in document["benchmarks"]]


def _row(document: Mapping[str, Any], benchmark: Mapping[str, Any], path: Path) -> Row:
    metrics = benchmark["metrics"]
    totals = value(metrics, "request_totals") or {}
    completed = value(totals, "successful")
    if completed is None:
        completed = value(metrics, "prompt_token_count", "successful", "count")
    cut = whole(value(totals, "incomplete") or 0, "incomplete requests")
    run = Run(
        duration_s=_duration_s(benchmark),
        completed=whole(completed, "successful requests"),
        failed=whole(value(totals, "errored") or 0, "errored requests"),
        input_tokens=whole(value(metrics, "prompt_token_count", "successful", "total_sum"), "prompt_token_count"),
        output_tokens=whole(value(metrics, "output_token_count", "successful", "total_sum"), "output_token_count"),
        ttft_ms=_latency(metrics, "time_to_first_token_ms"),
        tpot_ms=_latency(metrics, "inter_token_latency_ms"),
    )
    strategy = value(benchmark, "config", "strategy") or value(benchmark, "args", "strategy") or {}
    kind = value(strategy, "type_")
    level = {"synchronous": 1, "concurrent": value(strategy, "streams")}.get(kind, value(strategy, "max_concurrency"))
    rate = value(strategy, "rate") if kind in ("constant", "poisson") else None
    model = first_text(
        value(benchmark, "config", "backend", "model"),
        value(benchmark, "benchmarker", "backend", "model"),
        value(benchmark, "worker", "backend_model"),
        value(document, "config", "spec", "backend", "model"),
        value(document, "args", "model"),
        path.stem,
    )
    notes = (f"{cut} requests were cut off at the end of the run and are left out",) if cut else ()
    return foreign_row(
        TOOL,
        model,
        run,
        concurrency=whole(level, "concurrency") if level and rate is None else None,
        request_rate=positive(number(rate, "rate")) if rate is not None else None,
        notes=notes,
    )


def _duration_s(benchmark: Mapping[str, Any]) -> float:
    found = benchmark.get("duration")
    if found is not None:
        return number(found, "duration")
    for part, first, last in (
        ("scheduler_metrics", "measure_start_time", "measure_end_time"),
        ("run_stats", "start_time", "end_time"),
    ):
        start, end = value(benchmark, part, first), value(benchmark, part, last)
        if start is not None and end is not None:
            return number(end, last) - number(start, first)
    return number(benchmark.get("end_time"), "end_time") - number(benchmark.get("start_time"), "start_time")


def _latency(metrics: Mapping[str, Any], name: str) -> Latency | None:
    found = value(metrics, name, "successful") or {}
    return latency(
        {
            "mean": value(found, "mean"),
            "median": value(found, "median"),
            "p99": value(found, "percentiles", "p99"),
            "std": value(found, "std_dev"),
        },
        name,
    )
