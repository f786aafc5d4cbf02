"""One look at chips and server, and the rates between two looks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ascend_cli import web
from ascend_cli.bench.server import Target, metrics
from ascend_cli.hardware import Host
from ascend_cli.hardware.host import is_emulated
from ascend_cli.hardware.npu_smi import ChipReading, NpuSmiError


@dataclass(frozen=True)
class Engine:
    """One engine of a server: with data parallelism there are several, each with a cache of its own."""

    name: str
    running: float
    waiting: float
    cache_share: float


@dataclass(frozen=True)
class Sample:
    """Chips from npu-smi, gauges and counters from the server's /metrics."""

    time_s: float
    chips: tuple[ChipReading, ...]
    chips_problem: str | None
    emulated: bool
    server_answers: bool
    running: float = 0.0
    waiting: float = 0.0
    cache_share: float = 0.0  # the mean of the engines
    engines: tuple[Engine, ...] = ()
    counters: dict[str, float] = field(default_factory=dict)


COUNTERS = {
    "generated": "vllm:generation_tokens_total",
    "prompt": "vllm:prompt_tokens_total",
    "ttft_sum": "vllm:time_to_first_token_seconds_sum",
    "ttft_count": "vllm:time_to_first_token_seconds_count",
    "tpot_sum": "vllm:inter_token_latency_seconds_sum",
    "tpot_count": "vllm:inter_token_latency_seconds_count",
}


def take(url: str, host: Host | None = None, api_key: str | None = None) -> Sample:
    """Look once; what does not answer is left empty."""
    chips: tuple[ChipReading, ...] = ()
    problem = None
    try:
        chips = (host or Host()).npu_smi().chips
    except NpuSmiError as error:
        problem = str(error)
    samples = metrics(Target(web.base_url(url), "", "", api_key))
    found = Sample(time.monotonic(), chips, problem, is_emulated(), server_answers=samples is not None)
    if samples is None:
        return found
    gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    return replace(
        found,
        running=samples.total(gauges[0]),
        waiting=samples.total(gauges[1]),
        cache_share=samples.share(gauges[2]),
        engines=tuple(Engine(name, *(samples.of(gauge, name) for gauge in gauges)) for name in samples.engines),
        counters={name: samples.total(metric) for name, metric in COUNTERS.items()},
    )


def rates(first: Sample, second: Sample) -> dict[str, float | None]:
    """What the server did between two samples; the means are None if nothing finished."""
    seconds = max(second.time_s - first.time_s, 1e-6)
    grown = {name: max(0.0, second.counters.get(name, 0.0) - first.counters.get(name, 0.0)) for name in COUNTERS}
    return {
        "generated_tokens_per_s": grown["generated"] / seconds,
        "prompt_tokens_per_s": grown["prompt"] / seconds,
        "ttft_ms": 1e3 * grown["ttft_sum"] / grown["ttft_count"] if grown["ttft_count"] else None,
        "tpot_ms": 1e3 * grown["tpot_sum"] / grown["tpot_count"] if grown["tpot_count"] else None,
    }
