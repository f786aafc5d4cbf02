"""A row of another tool's figures: what is not told is unknown, what is no number is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ascend_cli.bench.results import Latency, Row, Run, Workload, row_from

NOTE = "made of a result of {tool}: lengths are the means of what the client counted"
UNKNOWN = {"chip": "unknown", "tensor_parallel_size": "unknown", "weight_format": "unknown"}


class Spoiled(ValueError):
    """A result of a known tool lacks a figure, or has something else in its place; the message names it."""


def foreign_row(
    tool: str,
    model: str,
    run: Run,
    *,
    prompts: int = 0,
    concurrency: int | None = None,
    request_rate: float | None = None,
    created: str = "",
    notes: tuple[str, ...] = (),
    kind: str = "serve",
) -> Row:
    """A row of one run. Raises Spoiled where a figure is none that a run can have."""
    asked = prompts or run.completed + run.failed
    each = max(run.completed, 1)
    lengths = (max(1, round(run.input_tokens / each)), max(1, round(run.output_tokens / each)))
    refused = f"{run.completed} of {asked} requests completed" if run.failed or run.completed < asked else None
    row = Row(
        kind,
        model,
        Workload(*lengths, max(asked, 1), concurrency, request_rate),
        (run,),
        clock="unknown",
        created=created,
        notes=(NOTE.format(tool=tool), *notes),
        refused=refused,
        known_by=dict(UNKNOWN),
    )
    try:
        return row_from(asdict(row))  # held to the same rules as a file of this tool's own
    except (KeyError, TypeError, ValueError) as error:
        raise Spoiled(str(error)) from error


def number(found: Any, name: str) -> float:
    """A finite number, also one that stands in text before its unit ("98.4 ms"). Raises Spoiled."""
    if isinstance(found, str):
        found = found.split()[0].replace(",", "") if found.split() else found
        try:
            found = float(found)
        except ValueError:
            raise Spoiled(f"{name} is {str(found)[:40]!r}") from None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise Spoiled(f"{name} is {str(found)[:40]!r}")
    return float(found)


def whole(found: Any, name: str) -> int:
    return round(number(found, name))


def value(document: Any, *names: str) -> Any:
    """What stands at a path of a document; None where the path ends, or a part of it is no object."""
    for name in names:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def first_text(*candidates: Any) -> str:
    """The first candidate that is a text with something in it."""
    return next((text for text in candidates if isinstance(text, str) and text.strip()), "")


def positive(found: float) -> float | None:
    """A rate or a level; None for what tools write for "none": 0, -1, infinity."""
    return found if 0 < found < float("inf") else None


def latency(found: Mapping[str, Any], name: str) -> Latency | None:
    """Mean, median and 99th percentile in milliseconds; None where one of them is not told, or all are 0."""
    wanted = [found.get(statistic) for statistic in ("mean", "median", "p99")]
    if any(figure is None for figure in wanted):
        return None
    mean, median, p99 = (number(figure, name) for figure in wanted)
    if not any((mean, median, p99)):
        return None  # a tool that did not measure it writes zeros
    return Latency(mean, median, p99, std=number(found.get("std") or 0.0, name))
