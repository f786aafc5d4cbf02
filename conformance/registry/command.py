"""`python -m conformance registry`: what comes of every architecture that vLLM knows, with the count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError
from ascend_facts import registry_results as kept
from ascend_facts.registry_results import RegistryResult

CHIPS = ["310P3", "910B3"]
CACHE = Path.home() / ".cache" / "ascend-plugin" / "registry"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def registry(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Architectures (default: the whole registry).")
    ] = None,
    chip: Annotated[
        list[str] | None, typer.Option("--chip", help="Emulated chip, may be repeated (default: 310P3, 910B3).")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only 'text generation' or 'pooling'.")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Leave out what the results show as right, refused or not built.")
    ] = False,
    faults: Annotated[bool, typer.Option("--faults", help="Also try deliberate faults: each must be caught.")] = False,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", help="Also try this deliberate fault; may be repeated.")
    ] = None,
    count_only: Annotated[
        bool, typer.Option("--count", help="Print the count of the results, and run nothing.")
    ] = False,
    store: Annotated[Path, typer.Option(help="Results, added to at each run.")] = kept.SHIPPED,
    page: Annotated[Path, typer.Option(help="The page that a run writes; the Chinese one goes to zh/.")] = PAGE,
    cache: Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")] = CACHE,
    json: options.Json = False,
) -> int:
    """Run the architectures of vLLM's registry as tiny models on emulated chips: each is right, refused, or a defect.

    Exit code 1 if an answer was wrong, or something ended neither in an answer nor in a refusal.
    """
    from ascend_cli.hardware import chip_named
    from ascend_cli.output import emit_json, notice
    from ascend_facts import model_results
    from conformance.registry.media_rows import media_results

    chips = [chip_named(one).name for one in chip or CHIPS]
    chosen, tried = _chosen(names or [], kind), _tried(faults, fault or [])
    if not count_only:
        _run(chosen, chips, (missing, tried), store, cache, notice)
        _write_page(page, store)
    rows = [row for row in kept.load(store).values() if row.name in chosen and row.chip in chips]
    if json:
        emit_json({"schema": kept.SCHEMA, "results": rows})
    else:
        whole = not names and kind is None  # those with media are counted from their rows
        _print_counts(rows, chosen, media_results(model_results.shipped().values(), chips) if whole else [])
    return BAD_ANSWER if any(not row.good for row in rows) else OK


def _chosen(names: list[str], kind: str | None) -> list[str]:
    from conformance.registry.names import TABLES, registered

    if kind is not None and kind not in TABLES.values():
        raise UsageError(f"--kind {kind!r} is none of {', '.join(dict.fromkeys(TABLES.values()))}")
    known = registered()
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{unknown[0]!r} is no text architecture of vLLM's registry")
    return [name for name in names or known if kind is None or known[name][0] == kind]


def _tried(every: bool, named: list[str]) -> tuple[str, ...]:
    from conformance.registry.run import OF_KINDS

    if unknown := [name for name in named if name not in OF_KINDS]:
        raise UsageError(f"--fault {unknown[0]} is none of {', '.join(OF_KINDS)}")
    return OF_KINDS if every else tuple(named)


def _run(
    chosen: list[str],
    chips: list[str],
    how: tuple[bool, tuple[str, ...]],
    store: Path,
    cache: Path,
    say: Callable[[str], None],
) -> None:
    from conformance.places import Places
    from conformance.registry.run import Runner

    def keep(result: RegistryResult) -> None:
        store.parent.mkdir(parents=True, exist_ok=True)
        kept.store(store, {**kept.load(store), (result.name, result.chip): result})
        notes = f" ({', '.join(result.notes)})" if result.notes else ""
        caught = "".join(f", {fault} {'caught' if found else 'MISSED'}" for fault, found in result.faults.items())
        say(f"{result.name} on {result.chip}: {result.outcome}{notes} {result.detail}{caught}")

    missing, faults = how
    with Places() as places:
        runner = Runner(places, cache, say)
        for name in chosen:
            known = kept.load(store)
            settled = [one for one in chips if (name, one) in known and known[name, one].outcome in SETTLED]
            wanted = [one for one in chips if not (missing and one in settled)]
            if wanted:
                runner.run(name, wanted, keep, faults)


def _write_page(page: Path, store: Path) -> None:
    from ascend_facts import model_results
    from conformance.architectures import architectures
    from conformance.table import write

    write(page, model_results.load(model_results.SHIPPED), architectures(), kept.load(store))


SETTLED = ("right", "refused", "not built")


def _print_counts(rows: list[RegistryResult], chosen: list[str], with_media: list[RegistryResult]) -> None:
    from rich.table import Table

    from ascend_cli.output import console
    from conformance.registry.media_rows import kinds
    from conformance.registry.names import registered

    known = {name: str(registered()[name][0]) for name in chosen} | (kinds() if with_media else {})
    table = Table("chip", "kind", *kept.OUTCOMES, "right of those that can be built", title_justify="left")
    for (chip, kind), counted in kept.counts([*rows, *with_media], known).items():
        numbers = [str(counted[outcome]) for outcome in kept.OUTCOMES]
        table.add_row(chip, kind, *numbers, f"{kept.share_right(counted):.0%}")
    console().print(table)
