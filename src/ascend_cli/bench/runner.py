"""Measuring one point: repetitions, the token audit, and everything a row records about where it was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ascend_cli.bench import server as serving
from ascend_cli.bench import vllm_bench
from ascend_cli.bench.audit import NOT_AUDITED, audit
from ascend_cli.bench.metrics import Metrics
from ascend_cli.bench.results import Row, Run, Workload
from ascend_cli.errors import AscendError, UsageError
from ascend_cli.serving import records
from ascend_cli.serving.flags import ServeFlags
from ascend_cli.web import is_loopback

EMULATED_CHIP = "310P3"  # the emulator's own default


@dataclass(frozen=True)
class Place:
    """What a benchmark runs on; None is not known. `known_by` says of each fact how it is known."""

    chip: str | None
    tensor_parallel_size: int | None
    emulated: bool
    clock: str
    weight_format: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    known_by: dict[str, str] = field(default_factory=dict)


def place_of(url: str, chip: str, tensor_parallel_size: int | None, weight_format: str) -> Place:
    """Where a server runs: what the command line says, then the record of one started here, then npu-smi's chip."""
    record = records.find(url)
    is_here = is_loopback(url)
    emulated = record.emulated if record else is_here and _emulated()
    machine_chip = _chip_here(emulated) if is_here and record is None else None
    facts: dict[str, list[tuple[object, str]]] = {
        "chip": [(chip, "flag"), (record and record.chip, "record"), (machine_chip, "npu-smi")],
        "tensor_parallel_size": [(tensor_parallel_size, "flag"), (record and record.tensor_parallel_size, "record")],
        "weight_format": [(weight_format, "flag"), (record and record.weight_format, "record")],
    }
    found = {name: next(((value, how) for value, how in each if value), None) for name, each in facts.items()}
    values: dict[str, Any] = {name: one[0] if one else None for name, one in found.items()}
    if record:
        clock = record.clock
    elif emulated:
        clock = _clock()
    else:
        clock = "real" if is_here else "unknown"
    known_by = {name: one[1] if one else "unknown" for name, one in found.items()}
    return Place(**values, emulated=emulated, clock=clock, known_by=known_by)


def place_here(chip: str, tensor_parallel_size: int | None, weight_format: str, flags: Sequence[str] = ()) -> Place:
    """This machine, real or emulated, for an engine that is started here with these flags."""
    given = ServeFlags.read(flags)
    emulated = _emulated()
    in_flags = given.count("--tensor-parallel-size")
    name = chip or _chip_here(emulated)
    known_by = {
        "chip": "flag" if chip else "npu-smi" if name else "unknown",
        "tensor_parallel_size": "flag" if tensor_parallel_size or in_flags else "vLLM's default",
        "weight_format": "flag" if weight_format else "unknown",
    }
    ranks = tensor_parallel_size or in_flags or 1
    return Place(name, ranks, emulated, _clock() if emulated else "real", weight_format or None, {}, known_by)


def _chip_here(emulated: bool) -> str | None:
    """The chip of this machine; None where there is none, or it cannot be told."""
    from ascend_cli.hardware.host import chips_here, spec_here
    from ascend_facts.chips import UnknownChip

    if emulated:
        return os.environ.get("ASCEND_EMULATOR_CHIP") or EMULATED_CHIP
    try:
        found = chips_here()
        return spec_here(found).name if found else None
    except UnknownChip:
        return None


def _clock() -> str:
    return os.environ.get("ASCEND_EMULATOR_CLOCK") or "functional"


def with_checkpoint(place: Place, root: str) -> Place:
    """Where the model came from, and its weights' format where the checkpoint is at hand and nothing else told it."""
    from ascend_cli.plan.planner import checkpoint_format
    from ascend_cli.registry.cards import find_model
    from ascend_cli.serving.decide import UNREADABLE
    from ascend_facts import chips

    place = replace(place, settings=place.settings | {"root": root})
    if place.weight_format is not None or place.chip is None:
        return place
    try:
        model = find_model(root)
        weight_format = checkpoint_format(model.shape, chips.find(place.chip))
    except (*UNREADABLE, chips.UnknownChip):
        return place
    how = "checkpoint" if model.folder else "card"
    return replace(place, weight_format=weight_format, known_by=place.known_by | {"weight_format": how})


def _emulated() -> bool:
    from ascend_cli.hardware.host import is_emulated

    return is_emulated()


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
        try:
            run = once(number)
        except UsageError:
            raise
        except AscendError as error:  # a failed run is a row that says so, and the runs before it are kept
            refused = str(error)
            runs = runs or [Run.nothing(workload.prompts)]
            say(f"  failed: {refused}")
            break
        runs.append(run)
        say(f"  {run.output_tokens_per_s:.2f} output tokens/s in {run.duration_s:.1f} s")
        if kind == "serve" and run.input_tokens_from == "client":
            say(f"  {NOT_AUDITED}")
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
        known_by=place.known_by,
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

    return measure("serve", target.model, workload, with_checkpoint(place, target.root), once, repeat, is_chat, say)


def with_server_counts(run: Run, before: Metrics | None, after: Metrics | None, warm_up: int) -> Run:
    """Put the server's count of prompt tokens in place of the client's, which counts only what it meant to send.

    Requests that only warm the server up are in its counters too, as large as the others on average.
    """
    counted = serving.processed_tokens(before, after)
    if counted is None or not run.completed:
        return run
    share = run.completed / (run.completed + warm_up)
    return replace(run, input_tokens=round(counted[0] * share), input_tokens_from="server")


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
    is_given = ServeFlags.read(flags).has("--tensor-parallel-size")
    size = place.tensor_parallel_size or 1
    ranks = ["--tensor-parallel-size", str(size)] if size > 1 and not is_given else []

    def once(number: int) -> Run:
        return vllm_bench.run_throughput(folder, workload, [*ranks, "--seed", str(number), *flags])

    return measure("throughput", name, workload, with_checkpoint(place, folder), once, repeat, False, say)
