"""What an issue sets for modelled serving on four 310P3 chips, what was reached, and what holds the rest.

The bounds are the issue's: they are ratios to a floor or to another figure of the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ascend_cli.bench.results import Row
from benchmarks._bounds import Bound, bound_table
from benchmarks._published_model import placement

SMALL_TPOT_OVER_FLOOR = 1.5  # Qwen3-0.6B on one chip, one request
LARGE_FLOOR_OVER_TPOT = 0.8  # Qwen3-32B on four, one request
TTFT_OF_EIGHT = 2.5  # of that of one request
OFFLINE_TOKENS_PER_S = 1280.0  # Qwen3-32B on four, prompts included: twice the published 640

ARRIVALS = """
A closed loop begins with eight prompts at once, which wait for one another; those that follow come as requests end. One
of them waits for the step that runs and for the one that asynchronous scheduling has put behind it, then for its own:
two decode steps and a prefill, where a lone request has the prefill only. The first eight weigh less the more prompts
there are: the published figures have 200, of 128 tokens."""

Find = Callable[[Row, str], dict[str, Any] | None]  # the workload of a row that ran with graphs, of a kind


def bounds(rows: list[Row], find: Find) -> list[Bound]:
    return [
        Bound("Qwen3-0.6B, 1 chip: TPOT / floor", SMALL_TPOT_OVER_FLOOR, _tpot(rows, find, "qwen3-0.6b", 1)),
        Bound(
            "Qwen3-32B, 4 chips: floor / TPOT",
            LARGE_FLOOR_OVER_TPOT,
            [(where, 1 / ratio) for where, ratio in _tpot(rows, find, "qwen3-32b", 4)],
            at_least=True,
        ),
        Bound("TTFT, 8 requests / 1", TTFT_OF_EIGHT, _ttft_ratios(rows, find)),
        Bound("Qwen3-32B, 4 chips, offline: tokens/s", OFFLINE_TOKENS_PER_S, _offline(rows, find), at_least=True),
    ]


def bound_lines(rows: list[Row], find: Find, engines: list[dict[str, Any]]) -> list[str]:
    """The bounds, and each decode step from its floor to the figure that a client sees."""
    lines = ["\nBounds, with graphs\n", *bound_table(bounds(rows, find)), ARRIVALS]
    lines += [
        "\nWhat holds a decode step of one request, in ms\n",
        "| model | chips | floor | its bytes at the fitted share of bandwidth | the chip's whole step | TPOT |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        workload = find(row, "online") if row.kind == "serve" and row.workload.concurrency == 1 else None
        steps = _steps_of(row, engines)
        if workload is None or steps is None:
            continue
        floor, chip = _floor_ms(row), sum(steps.values())
        share = placement(row).chip.bandwidth_share
        lines.append(
            f"| {row.model} | {row.tensor_parallel_size} | {floor:.1f} | {floor / share:.1f} | {chip:.1f} | "
            f"{workload['tpot_ms']:.1f} |"
        )
    return lines


def _floor_ms(row: Row) -> float:
    return placement(row).decode_floor_ms(1, row.workload.input_tokens + row.workload.output_tokens // 2)


def _steps_of(row: Row, engines: list[dict[str, Any]]) -> dict[str, float] | None:
    for engine in engines:
        same = (engine["model"], engine["ranks"], engine["mode"]) == (row.model, row.tensor_parallel_size, "graph")
        if same and engine["online"] and "steps" in engine:
            decode: dict[str, float] = engine["steps"]["decode"]
            return decode
    return None


def _tpot(rows: list[Row], find: Find, model: str, ranks: int) -> list[tuple[str, float]]:
    cases = []
    for row in rows:
        alone = row.kind == "serve" and row.workload.concurrency == 1
        if alone and (row.model, row.tensor_parallel_size) == (model, ranks):
            workload = find(row, "online")
            if workload is not None:
                cases.append(("one request", workload["tpot_ms"] / _floor_ms(row)))
    return cases


def _ttft_ratios(rows: list[Row], find: Find) -> list[tuple[str, float]]:
    online: dict[tuple[str, int | None], dict[int | None, dict[str, Any]]] = {}
    for row in rows:
        workload = find(row, "online") if row.kind == "serve" else None
        if workload is not None:
            online.setdefault((row.model, row.tensor_parallel_size), {})[row.workload.concurrency] = workload
    return [
        (f"{model}, {ranks} chips, {loads[8]['prompts']} prompts", loads[8]["ttft_ms"] / loads[1]["ttft_ms"])
        for (model, ranks), loads in online.items()
        if {1, 8} <= loads.keys()
    ]


def _offline(rows: list[Row], find: Find) -> list[tuple[str, float]]:
    cases = []
    for row in rows:
        if row.kind != "throughput" or (row.model, row.tensor_parallel_size) != ("qwen3-32b", 4):
            continue
        workload = find(row, "offline")
        if workload is not None:
            tokens = workload["prompts"] * (workload["input_tokens"] + workload["output_tokens"])
            cases.append((f"{workload['prompts']} prompts", tokens / workload["duration_s"]))
    return cases
