"""AISBench's performance results: DATASET.json of a task, DATASET.csv beside it, or both as it prints them.

Each figure stands under its stage: "total", or "stable" where only the steady part of a run was judged.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ascend_cli.bench.foreign.row import Spoiled, first_text, foreign_row, latency, number, positive, value
from ascend_cli.bench.results import Latency, Row, Run

TOOL = "AISBench"
REQUESTS, COMMON = "Performance Parameters", "Common Metric"  # the heads of its two tables
TASK = re.compile(r"Performance Results of task:?\s*\[?([^\s/\]]+)/([^\s:\]]+)")
OUTPUT_TOKENS = ("Total Output Tokens", "Total Generated Tokens")


def is_mine(document: Any) -> bool:
    return isinstance(document, Mapping) and {"Benchmark Duration", "Total Requests"} <= document.keys()


def rows_of(document: Mapping[str, Any], path: Path) -> list[Row]:
    """A row of one task's JSON; its latencies are in the CSV beside it. Raises Spoiled."""
    table = path.with_suffix(".csv")
    requests: dict[str, dict[str, Any]] = {}
    if table.is_file():
        try:
            requests = _requests(csv.reader(StringIO(table.read_text(encoding="utf-8-sig", errors="replace"))))
        except (OSError, csv.Error) as error:
            raise Spoiled(f"{table.name} beside it cannot be read") from error
    return [_row(path.parent.name or path.stem, document, requests)]


def rows_of_text(text: str, path: Path) -> list[Row]:
    """A row of a CSV with the JSON beside it, or one for each task whose tables are in the text. Raises Spoiled."""
    if text.startswith(REQUESTS + ","):
        document = path.with_suffix(".json")
        if not document.is_file():
            raise Spoiled(f"{document.name}, which has its duration and tokens, is not beside it")
        try:
            found = json.loads(document.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError, RecursionError) as error:
            raise Spoiled(f"{document.name} beside it cannot be read") from error
        if not is_mine(found):
            raise Spoiled(f"{document.name} beside it is no result of AISBench")
        return rows_of(found, document)
    if "\u2502" not in text or COMMON not in text:
        return []
    return [_row_of_tables(task or path.stem, part) for task, part in _tasks(text)]


def _tasks(text: str) -> Iterator[tuple[str, str]]:
    """Each task's name with what is printed after it; one without a name where there is none."""
    heads = list(TASK.finditer(text))
    if not heads:
        yield "", text
    for index, head in enumerate(heads):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        yield head[1], text[head.end() : end]


def _row_of_tables(model: str, text: str) -> Row:
    lines = [
        [cell.strip() for cell in line.strip().strip("\u2502").split("\u2502")]
        for line in text.splitlines()
        if line.strip().startswith("\u2502")
    ]
    starts = [index for index, cells in enumerate(lines) if cells[0] in (REQUESTS, COMMON)]
    requests: dict[str, dict[str, Any]] = {}
    common: dict[str, dict[str, Any]] = {}
    for index, start in enumerate(starts):
        part = lines[start : starts[index + 1] if index + 1 < len(starts) else None]
        if part[0][0] == REQUESTS:
            requests = _requests(iter(part))
        else:
            for cells in part[1:]:
                if len(cells) >= 3:
                    common.setdefault(cells[0], {})[cells[1]] = cells[2]
    return _row(model, common, requests)


def _requests(rows: Iterator[list[str]]) -> dict[str, dict[str, Any]]:
    """Statistics of each metric by name, of the stage that stands first."""
    head = next(rows, [])
    found: dict[str, dict[str, Any]] = {}
    for cells in rows:
        if cells and cells[0] not in found:
            found[cells[0]] = dict(zip(head, cells, strict=False))
    return found


def _row(model: str, common: Mapping[str, Any], requests: Mapping[str, Mapping[str, Any]]) -> Row:
    def figure(*names: str, absent: float | None = None) -> float:
        for name in names:
            stages = common.get(name)
            if isinstance(stages, Mapping) and stages:
                return number(stages.get("total", next(iter(stages.values()))), name)
        if absent is None:
            raise Spoiled(f"it lacks {names[0]!r}")
        return absent

    run = Run(
        duration_s=figure("Benchmark Duration") / 1e3,
        completed=int(figure("Success Requests")),
        failed=int(figure("Failed Requests", absent=0)),
        input_tokens=int(figure("Total Input Tokens")),
        output_tokens=int(figure(*OUTPUT_TOKENS)),
        ttft_ms=_latency(requests, "TTFT"),
        tpot_ms=_latency(requests, "TPOT"),
        itl_ms=_latency(requests, "ITL"),
    )
    level = positive(figure("Max Concurrency", absent=0))
    prompts = int(figure("Total Requests"))
    name = first_text(model, "unknown")
    return foreign_row(TOOL, name, run, prompts=prompts, concurrency=int(level) if level else None)


def _latency(requests: Mapping[str, Mapping[str, Any]], name: str) -> Latency | None:
    found = requests.get(name) or {}
    return latency(
        {"mean": value(found, "Average"), "median": value(found, "Median"), "p99": value(found, "P99")}, name
    )
