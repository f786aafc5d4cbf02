"""Measuring one point: repetitions, the token audit, and everything a row records about where it was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ascend_cli.bench import server as serving
from ascend_cli.bench import vllm_bench
from ascend_cli.bench.audit import audit
from ascend_cli.bench.results import Row, Run, Workload
from ascend_cli.serving import records


@dataclass(frozen=True)
class Place:
    """What a benchmark runs on; from the command line, the record of a started server, or this machine."""

    chip: str | None
    tensor_parallel_size: int
    emulated: bool
    clock: str
    weight_format: str = "fp16"
    settings: dict[str, str] = field(default_factory=dict)


def place_of(url: str, chip: str, tensor_parallel_size: int | None, weight_format: str) -> Place:
    """Where a server runs: its record if it was started here, then what the command line says."""
    record = records.find(url)
    if record is None:
        return replace(place_here(chip, tensor_parallel_size, weight_format), emulated=_is_local(url) and _emulated())
    return Place(
        chip=chip or record.chip,
        tensor_parallel_size=tensor_parallel_size or record.tensor_parallel_size,
        emulated=record.emulated,
        clock=record.clock,
        weight_format=weight_format or "fp16",
        settings=dict(record.settings),
    )


def place_here(chip: str, tensor_parallel_size: int | None, weight_format: str) -> Place:
    """This machine, real or emulated."""
    import os

    from ascend_cli.hardware import default_chip

    emulated = _emulated()
    name = chip or (os.environ.get("ASCEND_EMULATOR_CHIP") if emulated else None) or default_chip().name
    clock = os.environ.get("ASCEND_EMULATOR_CLOCK") or "functional"
    return Place(name, tensor_parallel_size or 1, emulated, clock if emulated else "real", weight_format or "fp16")


def _emulated() -> bool:
    from ascend_cli.hardware.host import is_emulated

    return is_emulated()


def _is_local(url: str) -> bool:
    return any(f"//{name}" in url for name in records.LOCAL_NAMES)


def measure(
    kind: str,
    model: str,
    workload: Workload,
    place: Place,
    once: Callable[[int], Run],
    repeat: int,
    is_chat: bool,
    say: Callable[[str], None],
) -> Row:
    """A row of `repeat` runs; it stops at, and is marked by, the first that did not measure what was asked."""
    runs: list[Run] = []
    refused = None
    for number in range(repeat):
        say(f"{model} {workload.label}: run {number + 1} of {repeat} ...")
        run = once(number)
        runs.append(run)
        say(f"  {run.output_tokens_per_s:.2f} output tokens/s in {run.duration_s:.1f} s")
        refused = audit(workload, run, is_chat)
        if refused:
            break
    return Row(
        kind=kind,
        model=model,
        workload=workload,
        runs=tuple(runs),
        chip=place.chip,
        tensor_parallel_size=place.tensor_parallel_size,
        weight_format=place.weight_format,
        emulated=place.emulated,
        clock=place.clock,
        engine=engine_name(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=place.settings,
        refused=refused,
    )


def engine_name() -> str:
    from ascend_cli.doctor.versions import installed

    found = installed()
    return ", ".join(
        f"{name} {found[name]}" for name in ("vllm", "ascend-plugin", "vllm-ascend", "torch_npu") if found.get(name)
    )


def measure_server(
    target: serving.Target,
    workload: Workload,
    place: Place,
    *,
    repeat: int,
    warm_up: int,
    is_chat: bool,
    flags: Sequence[str],
    say: Callable[[str], None],
) -> Row:
    """A row of `vllm bench serve`, its tokens counted by the server itself."""

    def once(number: int) -> Run:
        before = serving.metrics(target)
        run = vllm_bench.run_serve(
            {"url": target.url, "model": target.model, "tokenizer": target.root},
            workload,
            warm_up=warm_up,
            seed=number,
            is_chat=is_chat,
            flags=flags,
            environment=target.environment(),
        )
        return with_server_counts(run, before, serving.metrics(target), warm_up)

    return measure("serve", target.model, workload, _with_root(place, target.root), once, repeat, is_chat, say)


def _with_root(place: Place, root: str) -> Place:
    """Record where the model came from: a served name alone does not tell its sizes."""
    return replace(place, settings=place.settings | {"root": root})


def with_server_counts(run: Run, before: Mapping[str, float], after: Mapping[str, float], warm_up: int) -> Run:
    """Put the server's count of prompt tokens in place of the client's, which counts only what it meant to send.

    Requests that only warm the server up are in its counters too, as large as the others on average.
    """
    counted = serving.processed_tokens(before, after)
    if counted is None or not run.completed:
        return run
    share = run.completed / (run.completed + warm_up)
    return replace(run, input_tokens=round(counted[0] * share))


def measure_offline(
    name: str,
    folder: str,
    workload: Workload,
    place: Place,
    *,
    repeat: int,
    flags: Sequence[str],
    say: Callable[[str], None],
) -> Row:
    """A row of `vllm bench throughput`, which starts an engine of its own each time on the model in `folder`."""
    ranks = ["--tensor-parallel-size", str(place.tensor_parallel_size)] if place.tensor_parallel_size > 1 else []

    def once(number: int) -> Run:
        return vllm_bench.run_throughput(folder, workload, [*ranks, "--seed", str(number), *flags])

    return measure("throughput", name, workload, _with_root(place, folder), once, repeat, False, say)
