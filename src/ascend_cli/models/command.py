"""`ascend models`: does my model run on my chip, and with which features? Answered by results, never by intention."""

from __future__ import annotations

from typing import Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import OK, UsageError
from ascend_facts.model_results import FEATURES, SCHEMA, ModelResult, shipped

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
    transformers in float32. A feature without a result has not been run; nothing is inferred.
    """
    from ascend_cli.output import emit_json

    found = _rows(name)
    if chip is not None:
        from ascend_cli.hardware import chip_named

        wanted = chip_named(chip).name
        found = [row for row in found if row.chip == wanted]
    if json:
        emit_json({"schema": SCHEMA, "results": found})
        return OK
    _print(name, found)
    return OK


def _rows(name: str | None) -> list[ModelResult]:
    """The rows that a name means: a row's own name, else those that run the architecture which the model names."""
    rows = list(shipped().values())
    if name is None:
        return rows
    if named := [row for row in rows if row.name == name]:
        return named
    from ascend_cli.registry.cards import find_model

    try:
        config = find_model(name).config
    except UsageError as error:
        raise UsageError(f"{name!r} names no row of `ascend models` and no model that is at hand: {error}") from error
    architectures = config.get("architectures") or ()
    return [row for row in rows if row.architecture in architectures]


def _print(name: str | None, rows: list[ModelResult]) -> None:
    from rich.table import Table

    from ascend_cli.output import console

    if not rows:
        console().print(
            f"Nothing of the structure of {name} has been run on this chip: it may work, nobody has seen it."
        )
        return
    tried = [feature for feature in FEATURES if any(feature in row.cells for row in rows)]
    table = Table("row", "chip", "dtype", *tried, title_justify="left", title="as run on emulated chips")
    for row in rows:
        cells = [OUTCOMES[row.cells[feature].outcome] if feature in row.cells else "" for feature in tried]
        table.add_row(row.name, row.chip, row.dtype or "", *cells)
    console().print(table)
    for row in rows if name else ():
        for feature, cell in row.cells.items():
            if cell.outcome in ("refused", "fails", "impossible"):
                console().print(f"{row.name} on {row.chip}, {feature}: {cell.detail}")
