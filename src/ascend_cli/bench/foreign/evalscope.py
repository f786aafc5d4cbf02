"""evalscope's `perf`: benchmark_summary.json of a run, with the percentiles and arguments that lie beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ascend_cli.bench.foreign.row import Spoiled, first_text, foreign_row, latency, number, positive, value, whole
from ascend_cli.bench.results import Latency, Row, Run

TOOL = "evalscope"
SUMMARY = "benchmark_summary.json"
# Names of the summary since 1.0, and those before it.
OLDER = {
    "Test Duration (s)": "Time taken for tests (s)",
    "Concurrency": "Number of concurrency",
    "Total Requests": "Total requests",
    "Success Requests": "Succeed requests",
    "Failed Requests": "Failed requests",
    "Avg Input Tokens": "Average input tokens per request",
    "Avg Output Tokens": "Average output tokens per request",
    "Avg TTFT (ms)": "Average time to first token (s)",
    "Avg TPOT (ms)": "Average time per output token (s)",
}


def folders(path: Path) -> list[Path]:
    """Folders of runs below one that evalscope wrote, in the order of their load."""
    return sorted((file.parent for file in path.rglob(SUMMARY)), key=lambda found: (len(found.name), found.name))


def is_mine(document: Any) -> bool:
    return isinstance(document, Mapping) and (
        {"Test Duration (s)", "Success Requests"} <= document.keys()
        or {"Time taken for tests (s)", "Succeed requests"} <= document.keys()
    )


def rows_of(document: Mapping[str, Any], path: Path) -> list[Row]:
    """A row of one run. Raises Spoiled."""

    def figure(name: str, absent: float | None = None) -> float:
        for spelling in (name, OLDER.get(name, name)):
            if spelling in document:
                return number(document[spelling], spelling)
        if absent is None:
            raise Spoiled(f"it lacks {name!r}")
        return absent

    completed = int(figure("Success Requests"))
    arguments = _beside(path, "benchmark_args.json")
    run = Run(
        duration_s=figure("Test Duration (s)"),
        completed=completed,
        failed=int(figure("Failed Requests", 0)),
        input_tokens=round(completed * figure("Avg Input Tokens")),
        output_tokens=round(completed * figure("Avg Output Tokens", 0)),
        ttft_ms=_latency(document, path, "TTFT"),
        tpot_ms=_latency(document, path, "TPOT"),
        itl_ms=_latency(document, path, "ITL"),
    )
    level, rate = positive(figure("Concurrency", 0)), positive(figure("Request Rate (req/s)", -1))
    return [
        foreign_row(
            TOOL,
            first_text(value(arguments, "model"), path.parent.parent.name),
            run,
            prompts=int(figure("Total Requests")),
            concurrency=int(level) if level and rate is None else None,
            request_rate=rate,
        )
    ]


def _latency(document: Mapping[str, Any], path: Path, short: str) -> Latency | None:
    """The mean of the summary with the percentiles beside it; None where those were not kept."""
    rows = _percentiles(path)
    mean = document.get(f"Avg {short} (ms)")
    if mean is None and (older := document.get(OLDER.get(f"Avg {short} (ms)", ""))) is not None:
        mean = 1e3 * number(older, short)
    spread: dict[str, Any] = {"mean": mean}
    for row in rows:
        for name, label in (("median", "50%"), ("p99", "99%")):
            if value(row, "Percentiles") == label:
                in_ms, in_s = value(row, f"{short} (ms)"), value(row, f"{short} (s)")
                spread[name] = 1e3 * number(in_s, short) if in_ms is None and in_s is not None else in_ms
    return latency(spread, short)


def _percentiles(path: Path) -> list[Any]:
    found = _beside(path, "benchmark_percentile.json")
    if isinstance(found, Mapping):  # the older form: a column a metric
        labels = value(found, "Percentiles")
        columns = {name: column for name, column in found.items() if isinstance(column, list)}
        count = whole(len(labels) if isinstance(labels, list) else 0, "Percentiles")
        return [{name: column[row] for name, column in columns.items() if row < len(column)} for row in range(count)]
    return found if isinstance(found, list) else []


def _beside(path: Path, name: str) -> Any:
    """Another file of the same run; None where it is not there."""
    file = path.with_name(name)
    try:
        return json.loads(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise Spoiled(f"{name} beside it cannot be read") from error
