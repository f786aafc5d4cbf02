"""`ascend models`: does my model run on my chip, and with which features? Answered by results, never by intention."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from ascend_cli import options
from ascend_cli.errors import OK, UsageError
from ascend_facts import registry_results
from ascend_facts.model_results import FEATURES, LANGUAGE_PART, SCHEMA, ModelResult, shipped
from ascend_facts.refused import refusal
from ascend_facts.registry_results import OUTCOMES as REGISTRY_OUTCOMES
from ascend_facts.registry_results import RegistryResult

# A result of one letter or word a cell, so that all features fit a terminal.
OUTCOMES = {"pass": "yes", "refused": "refused", "fails": "WRONG", "impossible": "-"}


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="A model's name, folder or hub id, or a row's name (default: all rows)."
        ),
    ] = None,
    chip: Annotated[str | None, typer.Option("--chip", help="Only this chip, such as 310P3 or 910B3.")] = None,
    json: options.Json = False,
) -> int:
    """Which models run on which chip, and with which features, as it was tested.

    Each result is a tiny model with the published structure, run by vLLM on an emulated chip and compared with
    transformers in float32. A feature without a result has not been run; nothing is inferred. A model without a row is
    answered by its architecture's result in the run of vLLM's registry.
    """
    from ascend_cli.output import emit_json

    found, architectures, why = _rows(name)
    registry = [] if found or name is None else _of_registry(architectures)
    if chip is not None:
        from ascend_cli.hardware import chip_named

        wanted = chip_named(chip).name
        found = [row for row in found if row.chip == wanted]
        registry = [result for result in registry if result.chip == wanted]
    if json:
        emit_json({"schema": SCHEMA, "results": found, "registry": registry, "why": why})
    elif registry:
        _print_registry(registry)
    else:
        _print(name, found, why)
    return OK


def _rows(name: str | None) -> tuple[list[ModelResult], tuple[str, ...], str]:
    """(rows, architectures, why there are no rows) of a name: a row's own, the release's, else the architecture's."""
    rows = list(shipped().values())
    if name is None:
        return rows, (), ""
    if named := [row for row in rows if row.name == name]:
        return named, (), ""
    if (name, "310P3") in registry_results.load() or (name, "910B3") in registry_results.load():
        return [row for row in rows if row.architecture == name], (name,), ""
    from ascend_cli.registry.cards import find_model

    architectures: tuple[str, ...] = ()
    model = None
    try:
        model = find_model(name)
        architectures = architectures_of(model.config)
    except UsageError as error:
        if (release := release_of(name)) is None:
            raise UsageError(
                f"{name!r} names no row of `ascend models`, no release known here and no model that is at hand: {error}"
            ) from error
    else:
        release = release_of(model.hub_id or model.name)
    wanted = set(release["rows"]) if release else set()
    chosen = [row for row in rows if row.name in wanted and (not architectures or row.architecture in architectures)]
    chosen = chosen or [row for row in rows if row.architecture in architectures]
    if release and "architecture" in release and not architectures:
        architectures = (release["architecture"],)
    why = next(filter(None, map(refusal, architectures)), "") or (str(release.get("why", "")) if release else "")
    return chosen, architectures, "" if chosen else why


@cache
def _releases() -> list[dict[str, Any]]:
    text = Path(__file__).with_name("structures.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(text)["releases"])


def release_of(name: str) -> dict[str, Any] | None:
    """The entry of structures.toml for a release's name, or None."""
    return next((entry for entry in _releases() if re.search(entry["pattern"], name.lower())), None)


def architectures_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model names, and the architecture of its language part. Empty for what config.json does not say."""
    named = config.get("architectures")
    names = tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()
    return (*names, *(LANGUAGE_PART[name] for name in names if name in LANGUAGE_PART))


def _of_registry(architectures: tuple[str, ...]) -> list[RegistryResult]:
    """What came of these architectures of vLLM's registry, the first of them that was run."""
    results = registry_results.load()
    for name in architectures:
        if here := [result for result in results.values() if result.name == name]:
            return here
    return []


def _print_registry(results: list[RegistryResult]) -> None:
    from ascend_cli.output import console

    for result in results:
        meaning = REGISTRY_OUTCOMES[result.outcome]
        notes = f" ({', '.join(result.notes)})" if result.notes else ""
        detail = f": {result.detail}" if result.detail else ""
        console().print(f"{result.name} on {result.chip}: {result.outcome}{notes}, {meaning}{detail}")
    versions = ", ".join(f"{package} {version}" for package, version in sorted(results[0].versions.items()))
    console().print(f"As a tiny model of the architecture, on emulated chips; run {results[0].date} with {versions}.")


def _print(name: str | None, rows: list[ModelResult], why: str) -> None:
    from rich.table import Table

    from ascend_cli.output import console

    if not rows:
        reason = why or "it may work, nobody has seen it"
        console().print(f"Nothing of the structure of {name} has been run on this chip: {reason}.")
        return
    tried = [feature for feature in FEATURES if any(feature in row.cells for row in rows)]
    table = Table(title_justify="left", title="as run on emulated chips")
    for title in ("row", "chip", "dtype", *tried):
        table.add_column(title, overflow="fold")  # no name and no answer is cut on a narrow terminal
    for row in rows:
        cells = [OUTCOMES[row.cells[feature].outcome] if feature in row.cells else "" for feature in tried]
        table.add_row(row.name, row.chip, row.dtype or "", *cells)
    console().print(table)
    for row in rows if name else ():
        for feature, cell in row.cells.items():
            if cell.outcome in ("refused", "fails", "impossible"):
                console().print(f"{row.name} on {row.chip}, {feature}: {cell.detail}")
    for row in rows if name else ():
        console().print(f"{row.name} on {row.chip}: {_seen(row)}")


def _seen(row: ModelResult) -> str:
    """When and in which versions a row's cells were run."""
    days = row.dates
    when = "on days that were not recorded" if days is None else days[0] if days[0] == days[1] else " to ".join(days)
    versions: dict[str, set[str]] = {}
    for cell in row.cells.values():
        for package, version in cell.versions.items():
            versions.setdefault(package, set()).add(version)
    packages = ", ".join(f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()))
    return f"run {when}" + (f" with {packages}" if packages else "")
