"""Published figures of two Atlas 300I Duo cards, to compare any run with: the data set `atlas-300i-duo`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ascend_cli.bench.results import Latency, Row, Run, Workload


def published_rows() -> list[Row]:
    """The four online and three offline rows."""
    data = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    return [_serve_row(data, entry) for entry in data["serve"]] + [
        _offline_row(data, entry) for entry in data["throughput"]
    ]


def _serve_row(data: dict[str, Any], entry: dict[str, Any]) -> Row:
    run = Run(
        duration_s=entry["duration_s"],
        completed=entry["prompts"],
        failed=0,
        input_tokens=entry["prompts"] * entry["input_tokens"],
        output_tokens=entry["prompts"] * entry["output_tokens"],
        ttft_ms=Latency(**entry["ttft_ms"]),
        tpot_ms=Latency(**entry["tpot_ms"]),
        itl_ms=Latency(**entry["itl_ms"]),
        peak_output_tokens_per_s=entry["peak_output_tokens_per_s"],
        peak_concurrency=entry["peak_concurrency"],
    )
    workload = Workload(entry["input_tokens"], entry["output_tokens"], entry["prompts"], entry["concurrency"])
    return _row(data, "serve", entry, workload, (run,), ())


def _offline_row(data: dict[str, Any], entry: dict[str, Any]) -> Row:
    offline = data["offline"]
    workload = Workload(offline["input_tokens"], offline["output_tokens"], offline["prompts"])
    output_tokens = workload.prompts * workload.output_tokens
    runs = tuple(
        Run(
            duration_s=output_tokens / speed,
            completed=workload.prompts,
            failed=0,
            input_tokens=workload.prompts * workload.input_tokens,
            output_tokens=output_tokens,
        )
        for speed in entry["output_tokens_per_s"]
    )
    return _row(data, "throughput", entry, workload, runs, (offline["note"],))


def _row(
    data: dict[str, Any],
    kind: str,
    entry: dict[str, Any],
    workload: Workload,
    runs: tuple[Run, ...],
    notes: tuple[str, ...],
) -> Row:
    return Row(
        kind=kind,
        model=entry["model"],
        workload=workload,
        runs=runs,
        chip=data["chip"],
        tensor_parallel_size=entry["tensor_parallel_size"],
        weight_format="fp16",  # the published command's --dtype float16
        engine=data["engine"],
        created=data["created"],
        label="published Atlas 300I Duo figures",
        settings=dict(data["settings"]),
        notes=notes,
    )
