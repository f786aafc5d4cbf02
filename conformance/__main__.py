"""`python -m conformance`: the supported models as a tested result, written where `ascend models` reads it.

`python -m conformance registry` runs all that vLLM knows instead (conformance/registry).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError
from ascend_facts import model_results as kept

if TYPE_CHECKING:
    from ascend_facts.model_results import ModelResult
    from conformance.architectures import Architecture

CHIPS = ["310P3", "910B3"]
FAULTS = "faults"
STARTS = ("graph", "eager", "tp2", "ep2", "ngram", "mtp", "lora", "one", FAULTS)  # settings of verify.py, and no other
CACHE = Path.home() / ".cache" / "ascend-plugin" / "conformance"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Architectures, or groups of them (default: all).")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the architectures instead of running them.")] = False,
    chip: Annotated[
        list[str] | None, typer.Option("--chip", help="Emulated chip, may be repeated (default: 310P3, 910B3).")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Use the chips of this computer instead of emulated ones.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="The few models that cross most code paths.")] = False,
    faults: Annotated[bool, typer.Option("--faults", help="Also try deliberate faults: each must be caught.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help=f"Engine starts to run: {', '.join(STARTS)}. May be repeated.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Leave out what the results already show as passed, or refused.")
    ] = False,
    store: Annotated[Path, typer.Option(help="Results, added to at each run.")] = kept.SHIPPED,
    page: Annotated[Path, typer.Option(help="The table of the results; the Chinese one goes to zh/.")] = PAGE,
    cache: Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")] = CACHE,
    json: options.Json = False,
) -> int:
    """Which models run, shown by running them: vLLM on emulated chips against transformers in fp32.

    Exit code 1 if an answer was wrong, an engine died or a deliberate fault went unnoticed. A refusal that gives its
    reason is no failure.
    """
    from conformance.architectures import architectures, select

    chosen = select(names or [], quick)
    if list_only:
        return _list(chosen, json)
    if unknown := set(only or ()) - set(STARTS):
        raise UsageError(f"--only {sorted(unknown)[0]} is no engine start: use {', '.join(STARTS)}")
    if here and chip:
        raise UsageError("--here and --chip exclude each other: name emulated chips, or use those of this computer")
    from ascend_cli.hardware import chip_named

    emulated = [chip_named(name).name for name in chip or CHIPS]

    from ascend_cli.output import emit_json, notice
    from conformance.places import Places
    from conformance.table import write
    from conformance.verify import HERE, Verifier

    def keep(result: ModelResult) -> None:
        store.parent.mkdir(parents=True, exist_ok=True)
        everything = kept.merge(kept.load(store), result)
        kept.store(store, everything)
        write(page, everything, architectures())

    done = []
    with Places() as places:
        for architecture in chosen:
            verifier = Verifier(architecture, places, cache, cache / "logs", notice)
            for name in [None] if here else emulated:
                known = kept.settled(kept.load(store), architecture.name, name or HERE) if missing else ()
                result = verifier.run(name, faults or FAULTS in (only or ()), only, known, keep)
                done.append(result)
                notice(_summary(result))
    if json:
        emit_json({"schema": kept.SCHEMA, "results": done})
    return OK if all(result.good for result in done) else BAD_ANSWER


def _summary(result: ModelResult) -> str:
    cells = ", ".join(f"{feature} {cell.outcome}" for feature, cell in result.cells.items())
    faults = "".join(
        f", fault {name} {'caught' if trial.caught else 'MISSED'}" for name, trial in result.faults.items()
    )
    return f"{result.name} on {result.chip}: {cells}{faults}"


def _list(chosen: list[Architecture], json: bool) -> int:
    from ascend_cli.output import console, emit_json

    if json:
        fields = ("name", "group", "task", "published", "covers")
        emit_json([{field: getattr(entry, field) for field in fields} for entry in chosen])
        return OK
    from rich.table import Table

    table = Table(
        "name", "group", "covers", "structure of", title="`python -m conformance NAME` runs one", title_justify="left"
    )
    for entry in chosen:
        table.add_row(entry.name, entry.group, entry.covers, entry.published)
    console().print(table)
    return OK


app = typer.Typer(add_completion=False)
app.command()(verify)

if __name__ == "__main__":
    from ascend_cli.cli import run

    if sys.argv[1:2] == ["registry"]:
        from conformance.registry.command import registry

        app = typer.Typer(add_completion=False)
        app.command()(registry)
        del sys.argv[1]
    sys.exit(run(application=app, name="conformance"))
