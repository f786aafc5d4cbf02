"""Reading more out of a row: saturation, goodput under an SLO, and the share of the roofline that was reached."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ascend_cli.bench.audit import NOT_AUDITED
from ascend_cli.bench.results import Row, Run, Workload
from ascend_cli.errors import UsageError

if TYPE_CHECKING:
    from ascend_facts.roofline import Placement

RATE_DEFICIT = 0.9  # fewer requests served a second than this share of those offered: the queue grows
QUEUE_GROWTH = 1.5  # time to first token of the last third of requests over the first third's
FLAT_GAIN = 0.05  # more load that brings less than this is past the knee
FLAG_OF = {"chip": "--chip", "tensor_parallel_size": "--tp", "weight_format": "--weights"}
SLO_METRICS = ("ttft", "tpot", "e2el")


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objective: milliseconds that a request may take, by metric (ttft, tpot, e2el)."""

    limits_ms: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, text: str) -> Slo:
        """`ttft:500,tpot:60`. Raises UsageError."""
        limits = []
        for part in text.split(","):
            metric, _, value = part.partition(":")
            try:
                limit = float(value)
            except ValueError:
                limit = -1.0
            if metric.strip() not in SLO_METRICS or limit <= 0:
                raise UsageError(
                    f"--slo {text!r}: write metric:milliseconds with {', '.join(SLO_METRICS)}, as in ttft:500,tpot:60"
                )
            limits.append((metric.strip(), limit))
        return cls(tuple(limits))

    @property
    def text(self) -> str:
        return ", ".join(f"{metric} <= {limit:g} ms" for metric, limit in self.limits_ms)


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met an SLO: a second, and as a share of all."""

    requests_per_s: float
    share: float


def goodput(run: Run, slo: Slo) -> Goodput | None:
    """Goodput of a run; None without per-request times."""
    if not run.requests:
        return None
    values = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2el": "latency_ms"}
    met = sum(
        all(getattr(request, values[metric]) <= limit for metric, limit in slo.limits_ms) for request in run.requests
    )
    return Goodput(met / run.duration_s if run.duration_s > 0 else 0.0, met / len(run.requests))


def saturation(row: Row) -> str | None:
    """Why a row's load was more than the server could take; None if it kept up."""
    run, rate = row.typical, row.workload.request_rate
    if rate and run.requests_per_s < RATE_DEFICIT * rate:
        return f"saturated: {rate:g} requests/s offered, {run.requests_per_s:.2f} served"
    if rate and len(run.requests) >= 12:
        ordered = sorted(run.requests, key=lambda request: request.start_s)
        third = len(ordered) // 3
        first = sum(request.ttft_ms for request in ordered[:third]) / third
        last = sum(request.ttft_ms for request in ordered[-third:]) / third
        if last > QUEUE_GROWTH * first and last - first > 50:
            return f"saturated: time to first token rose from {first:.0f} to {last:.0f} ms during the run"
    return None


def knee(rows: list[Row]) -> list[str | None]:
    """For rows of rising concurrency: where more load stopped bringing throughput."""
    labels: list[str | None] = []
    for index, row in enumerate(rows):
        previous = rows[index - 1] if index else None
        if previous is None or (row.workload.concurrency or 0) <= (previous.workload.concurrency or 0):
            labels.append(None)
            continue
        if row.refused or previous.refused or not previous.typical.output_tokens_per_s:
            labels.append(None)  # a run that failed says nothing of the load
            continue
        gain = row.typical.output_tokens_per_s / previous.typical.output_tokens_per_s - 1
        flat = gain < FLAT_GAIN
        labels.append(f"past the knee: {gain:+.0%} throughput over c={previous.workload.concurrency}" if flat else None)
    return labels


@dataclass(frozen=True, slots=True)
class RooflineShare:
    """A row against the floors of its chips: floor time over measured time, 1.0 being the roofline."""

    decode_floor_ms: float
    decode_share: float | None
    prefill_floor_ms: float
    prefill_share: float | None
    offline_share: float | None  # least duration of an offline run over its real one


def roofline_share(row: Row) -> RooflineShare | None:
    """How close a row came to its chips' limits; None if model or chip is not known here, or the time is a CPU's.

    Decode compares the floor of a step of all concurrent sequences at mid-answer with the median TPOT. Prefill
    compares the floor of one prompt with the median TTFT, at concurrency 1 only, where no request waits for another.
    """
    from ascend_cli.registry.cards import find_model
    from ascend_cli.serving.decide import UNREADABLE
    from ascend_facts import chips
    from ascend_facts.quantized_format import BYTES_OF_WEIGHT
    from ascend_facts.roofline import Placement

    if row.chip is None or row.tensor_parallel_size is None or row.weight_format not in BYTES_OF_WEIGHT:
        return None  # of an unknown machine every share would be a guess
    if row.refused or (row.emulated and row.clock == "functional"):
        return None  # a CPU's time against a chip's floor says nothing
    shape = None
    for name in filter(None, (row.settings.get("root"), row.model)):  # the folder may be on another machine
        with suppress(*UNREADABLE):
            shape = shape or find_model(name).shape
    try:
        chip = chips.find(row.chip)
    except chips.UnknownChip:
        return None
    if shape is None:
        return None
    placement = Placement(shape, chip, row.tensor_parallel_size, row.weight_format)  # type: ignore[arg-type]
    load, run = row.workload, row.typical
    sequences = min(load.concurrency or 1, load.prompts)
    decode_floor = placement.decode_floor_ms(sequences, load.input_tokens + load.output_tokens // 2)
    prefill_floor = placement.prefill_floor_ms(load.input_tokens)
    alone = load.concurrency == 1 and run.ttft_ms is not None
    return RooflineShare(
        decode_floor_ms=decode_floor,
        decode_share=decode_floor / run.tpot_ms.median if run.tpot_ms and run.tpot_ms.median else None,
        prefill_floor_ms=prefill_floor,
        prefill_share=prefill_floor / run.ttft_ms.median if alone and run.ttft_ms and run.ttft_ms.median else None,
        offline_share=_offline_floor_s(placement, load) / run.duration_s
        if row.kind == "throughput" and run.duration_s > 0
        else None,
    )


def _offline_floor_s(placement: Placement, load: Workload) -> float:
    return placement.offline_floor_s(load.prompts, load.input_tokens, load.output_tokens)


def notes_of(row: Row) -> list[str]:
    """Everything that a reader must know before believing a row."""
    notes = list(row.notes)
    if row.kind == "serve" and row.known_by and any(run.input_tokens_from == "client" for run in row.runs):
        notes.insert(0, NOT_AUDITED)
    if row.refused:
        notes.insert(0, f"REFUSED: {row.refused}")
    if unknown := [FLAG_OF[name] for name, how in row.known_by.items() if how == "unknown"]:
        notes.append(f"no share of the roofline: give {', '.join(unknown)}, which nothing here tells")
    if row.emulated:
        notes.append(
            f"emulated chips, {row.clock} clock: "
            + ("the CPU's time, hence no share of a roofline" if row.clock == "functional" else "modelled time")
        )
    if row.warmed_up_first:
        notes.append(f"first of {len(row.runs)} runs was warming up and is left out")
    if len(row.measured) > 1:
        notes.append(f"{len(row.measured)} runs, spread {row.spread:.1%}")
    if label := saturation(row):
        notes.append(label)
    return notes
