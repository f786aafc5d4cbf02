"""vLLM's own results: the JSON of --save-result, --append-result and its sweeps, and the tables that it prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ascend_cli.bench.foreign.row import Spoiled, first_text, foreign_row, latency, number, positive, value, whole
from ascend_cli.bench.results import Row, Run
from ascend_cli.bench.vllm_bench import parse_serve
from ascend_cli.errors import AscendError

TOOL = "vLLM's own"
TITLE = "Serving Benchmark Result"
LINE = re.compile(r"^\s*([A-Z][^:\n]*?):\s+(-?[\d.,]+|inf|nan)\s*$", re.MULTILINE)
THROUGHPUT = re.compile(r"Throughput:\s+([\d.]+) requests/s,\s+([\d.]+) total tokens/s,\s+([\d.]+) output tokens/s")
TOTAL = re.compile(r"Total num (prompt|output) tokens:\s+(\d+)")


def is_mine(document: Any) -> bool:
    if not isinstance(document, Mapping):
        return False
    serve = {"duration", "completed", "total_input_tokens"} <= document.keys()
    return serve or {"elapsed_time", "num_requests", "total_num_tokens"} <= document.keys()


def rows_of(document: Mapping[str, Any], path: Path) -> list[Row]:
    """A row of one JSON document. Raises Spoiled."""
    if "elapsed_time" in document:
        raise Spoiled("it does not divide prompt from output tokens: save what `vllm bench throughput` prints")
    try:
        run = parse_serve(document)
    except (AscendError, OverflowError) as error:
        raise Spoiled(str(error)) from error
    concurrency, rate = document.get("max_concurrency"), document.get("request_rate")
    return [
        foreign_row(
            TOOL,
            first_text(document.get("model_id"), path.stem),
            run,
            prompts=whole(document.get("num_prompts") or run.completed + run.failed, "num_prompts"),
            concurrency=whole(concurrency, "max_concurrency") if concurrency else None,
            request_rate=None if rate in (None, "inf", float("inf")) else positive(number(rate, "request_rate")),
            created=first_text(value(document, "date")),
        )
    ]


def rows_of_text(text: str, path: Path) -> list[Row]:
    """A row a printed table; the file's name is the model's, which a table does not name. Raises Spoiled."""
    found = [_row_of_table(part, path) for part in re.split(rf"={{3,}}\s*{TITLE}\s*={{3,}}", text)[1:]]
    matched = THROUGHPUT.search(text)
    return [*found, *([_row_of_throughput(matched, text, path)] if matched else [])]


def _row_of_table(table: str, path: Path) -> Row:
    figures = {name.strip(): found for name, found in LINE.findall(table.split("=" * 20)[0])}

    def figure(name: str) -> float:
        if name not in figures:
            raise Spoiled(f"a table lacks {name!r}")
        return number(figures[name], name)

    def optional(name: str) -> float | None:
        return number(figures[name], name) if name in figures else None

    def distribution(short: str) -> dict[str, Any]:
        names = {"mean": "Mean", "median": "Median", "p99": "P99"}
        return {key: figures.get(f"{name} {short} (ms)") for key, name in names.items()}

    run = Run(
        duration_s=figure("Benchmark duration (s)"),
        completed=int(figure("Successful requests")),
        failed=int(optional("Failed requests") or 0),
        input_tokens=int(figure("Total input tokens")),
        output_tokens=int(figure("Total generated tokens")),
        ttft_ms=latency(distribution("TTFT"), "TTFT"),
        tpot_ms=latency(distribution("TPOT"), "TPOT"),
        itl_ms=latency(distribution("ITL"), "ITL"),
        peak_output_tokens_per_s=optional("Peak output token throughput (tok/s)"),
        peak_concurrency=optional("Peak concurrent requests"),
    )
    level = optional("Maximum request concurrency")
    rate = figures.get("Request rate configured (RPS)", "inf")
    return foreign_row(
        TOOL,
        path.stem,
        run,
        concurrency=int(level) if level else None,
        request_rate=None if rate == "inf" else positive(number(rate, "request rate")),
    )


def _row_of_throughput(matched: re.Match[str], text: str, path: Path) -> Row:
    totals = {name: int(count) for name, count in TOTAL.findall(text)}
    if len(totals) < 2:
        raise Spoiled("the lines 'Total num prompt tokens' and 'Total num output tokens' are missing")
    requests_per_s, tokens_per_s = float(matched[1]), float(matched[2])
    if not tokens_per_s:
        raise Spoiled("its throughput is 0")
    duration_s = sum(totals.values()) / tokens_per_s
    run = Run(
        duration_s=duration_s,
        completed=max(1, round(requests_per_s * duration_s)),
        failed=0,
        input_tokens=totals["prompt"],
        output_tokens=totals["output"],
    )
    return foreign_row(TOOL, path.stem, run, kind="throughput")
