"""Results of benchmarks as data: one row a workload and server setting, with every repetition in it.

A results file is JSON, `{"schema": "ascend.bench/1", "rows": [...]}`. Times are milliseconds, lengths tokens.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ascend_cli.errors import UsageError

SCHEMA = "ascend.bench/1"
MANIFEST = "sweep.json"  # of a sweep's folder: what its points have in common
PERCENTILES = (50, 90, 95, 99)
LARGEST = 1e12  # of any figure: tokens, milliseconds, requests; infinity and NaN are none either
WARM_UP_SHORTFALL = 0.07  # a first run this much slower than the median of the rest was warming up


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of times in milliseconds."""

    mean: float
    median: float
    p99: float
    std: float = 0.0

    @classmethod
    def of(cls, values_ms: Iterable[float]) -> Latency | None:
        """Summary of the values; None of none."""
        ordered = sorted(values_ms)
        if not ordered:
            return None
        return cls(
            statistics.fmean(ordered), percentile(ordered, 50), percentile(ordered, 99), statistics.pstdev(ordered)
        )


def percentile(ordered: list[float], percent: float) -> float:
    """Linear interpolation between closest ranks, numpy's default, of an ascending list."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True, slots=True)
class Workload:
    """What was asked for."""

    input_tokens: int
    output_tokens: int
    prompts: int
    concurrency: int | None = None  # None: all at once (offline) or by rate
    request_rate: float | None = None  # requests a second; None: as fast as the concurrency allows

    @property
    def label(self) -> str:
        load = (
            f"c={self.concurrency}"
            if self.concurrency
            else f"rate={self.request_rate:g}"
            if self.request_rate
            else "offline"
        )
        return f"{self.input_tokens}/{self.output_tokens} {load}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a run, as the client saw it."""

    start_s: float
    ttft_ms: float
    tpot_ms: float
    latency_ms: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition, measured."""

    duration_s: float
    completed: int
    failed: int
    input_tokens: int  # really processed where the server counted, else what the client sent
    output_tokens: int
    ttft_ms: Latency | None = None
    tpot_ms: Latency | None = None
    itl_ms: Latency | None = None
    peak_output_tokens_per_s: float | None = None
    peak_concurrency: float | None = None
    requests: tuple[Request, ...] = ()
    input_tokens_from: str = "client"  # who counted: "server", or the client, which counts what it meant to send

    @classmethod
    def nothing(cls, prompts: int) -> Run:
        """A run that did not come about."""
        return cls(duration_s=0.0, completed=0, failed=prompts, input_tokens=0, output_tokens=0)

    @property
    def requests_per_s(self) -> float:
        return self._a_second(self.completed)

    @property
    def output_tokens_per_s(self) -> float:
        return self._a_second(self.output_tokens)

    @property
    def total_tokens_per_s(self) -> float:
        return self._a_second(self.input_tokens + self.output_tokens)

    def _a_second(self, count: float) -> float:
        return count / self.duration_s if self.duration_s > 0 else 0.0


@dataclass(frozen=True)
class Row:
    """One point of a benchmark: model, chips, server settings, workload, repetitions, and what to think of them."""

    kind: str  # "serve" or "throughput"
    model: str
    workload: Workload
    runs: tuple[Run, ...]
    chip: str | None = None
    tensor_parallel_size: int | None = None  # None: not known
    weight_format: str | None = None  # None: not known
    emulated: bool = False
    clock: str = "real"  # or what an emulated machine's clock was: functional, timing, both; unknown of another machine
    engine: str = ""
    created: str = ""
    label: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: str | None = None  # why the figures must not be used
    known_by: dict[str, str] = field(default_factory=dict)  # how chip, size and format are known: flag, record ...

    @property
    def size_text(self) -> str:
        """The chips of one server, for people: their number is not always known."""
        return "?" if self.tensor_parallel_size is None else str(self.tensor_parallel_size)

    @property
    def measured(self) -> tuple[Run, ...]:
        """The runs that count: all but a first one that was warming up."""
        return self.runs[1:] if self.warmed_up_first else self.runs

    @property
    def warmed_up_first(self) -> bool:
        if len(self.runs) < 2:
            return False
        rest = statistics.median(run.output_tokens_per_s for run in self.runs[1:])
        return self.runs[0].output_tokens_per_s < (1 - WARM_UP_SHORTFALL) * rest

    @property
    def typical(self) -> Run:
        """The measured run of median throughput."""
        ordered = sorted(self.measured, key=lambda run: run.output_tokens_per_s)
        return ordered[len(ordered) // 2]

    @property
    def spread(self) -> float:
        """Largest less smallest throughput of the measured runs, as a share of the median."""
        speeds = [run.output_tokens_per_s for run in self.measured]
        middle = statistics.median(speeds)
        return (max(speeds) - min(speeds)) / middle if middle else 0.0

    @property
    def point(self) -> tuple[Any, ...]:
        """What two rows must share to be compared: model, kind and workload; chips and settings may differ."""
        return (
            _plain(self.model),
            self.kind,
            self.workload.input_tokens,
            self.workload.output_tokens,
            self.workload.concurrency,
            self.workload.request_rate,
        )


def _plain(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1].lower()


def save(rows: Iterable[Row], file: Path) -> None:
    """Write a results file. Raises UsageError if it cannot be written."""
    document = {"schema": SCHEMA, "rows": [asdict(row) for row in rows]}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")  # a stopped process leaves the file as it was
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}): choose another file with --output") from error


def load(source: str | Path) -> list[Row]:
    """Rows of a results file, or of every one in a folder.

    Raises UsageError if there are none, or they are of another schema.
    """
    path = Path(source)
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if file.name != MANIFEST]
        rows = [row for file in files for row in _load_file(file)]
        if not rows:
            raise UsageError(f"{path} holds no results: run `ascend bench serve --output {path}/name.json` first")
        return rows
    return _load_file(path)


def _load_file(file: Path) -> list[Row]:
    try:
        document = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): give a results file of `ascend bench`") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON ({error}): give a results file of `ascend bench`") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UsageError(
            f"{file} has schema {schema!r}, this release reads {SCHEMA!r}: run the benchmark again with this release"
        )
    try:
        return [row_from(entry) for entry in document["rows"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} is damaged ({error}): run the benchmark again") from error


def row_from(entry: Mapping[str, Any]) -> Row:
    """A row from its JSON form. Raises KeyError, TypeError or ValueError for anything else."""
    known = {item.name for item in fields(Row)}
    if unknown := sorted(entry.keys() - known):
        raise ValueError(f"unknown field {unknown[0]}")
    values = dict(entry)
    values["workload"] = Workload(**entry["workload"])
    values["runs"] = tuple(_run_from(run) for run in entry["runs"])
    values["notes"] = tuple(entry.get("notes", ()))
    if not values["runs"]:
        raise ValueError("a row without runs")
    row = Row(**values)
    for name in ("kind", "model", "clock", "engine", "created", "label"):
        if not isinstance(getattr(row, name), str):
            raise ValueError(f"{name} is not text")
    for name in ("chip", "weight_format", "refused"):
        if not isinstance(getattr(row, name), str | None):
            raise ValueError(f"{name} is not text")
    for name in ("settings", "known_by"):
        found = getattr(row, name)
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ValueError(f"{name} is not an object of texts")
    if not all(isinstance(note, str) for note in row.notes) or not isinstance(row.emulated, bool):
        raise ValueError("notes or emulated is of another kind")
    _check_numbers(row.workload)
    if row.tensor_parallel_size is not None and not 1 <= _whole(row.tensor_parallel_size) <= 1 << 16:
        raise ValueError("tensor_parallel_size is not a size")
    return row


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _check_numbers(item: Any) -> None:
    """Every number of a record finite and not negative, and in its place. Raises ValueError."""
    for one in fields(item):
        value = getattr(item, one.name)
        if isinstance(value, tuple | Latency) or (value is None and "None" in str(one.type)):
            continue
        if str(one.type) == "str":
            if not isinstance(value, str):
                raise ValueError(f"{one.name} is not text")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
            raise ValueError(f"{one.name} is {value!r}")


def _run_from(entry: Mapping[str, Any]) -> Run:
    values = dict(entry)
    for name in ("ttft_ms", "tpot_ms", "itl_ms"):
        if values.get(name) is not None:
            values[name] = Latency(**values[name])
            _check_numbers(values[name])
    values["requests"] = tuple(Request(**request) for request in entry.get("requests", ()))
    run = Run(**values)
    _check_numbers(run)
    for request in run.requests:
        _check_numbers(request)
    return run
