"""The result of verifying one model on one chip, and how results are kept: JSON that later runs add to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ascend_facts import registry_results
from ascend_facts.quantized_format import not_run
from ascend_facts.refused import refusal

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec
    from ascend_facts.model_shape import ModelShape

Outcome = Literal["pass", "refused", "fails", "impossible"]
SCHEMA = "ascend.models/2"

# Columns of the table, in order, with what each one shows.
FEATURES: Mapping[str, str] = {
    "prefill": "prompts of 1 to 127 tokens, each computed in one step",
    "chunked prefill": "prompts of 129 to 420 tokens, computed 256 tokens at a time, mixed with decoding",
    "prefix cache": "the long prompts again, their first blocks taken from the cache",
    "decode, eager": "twelve tokens, one step each, operators launched one by one",
    "decode, graph": "the same with the step captured as a graph and replayed",
    "pooling": "one vector, or one score, for each of 24 texts of 3 to 300 tokens",
    "TP 2": "all of this on two chips",
    "EP 2": "the experts split over two chips",
    "n-gram": "drafts of three tokens from the text before, in every step, most of them refused",
    "MTP": "drafts from the model's own multi-token prediction layer, accepted and refused by turns",
    "LoRA": "two adapters and none in one batch, in graphs, against the adapters merged into the weights",
}


SHIPPED = Path(__file__).with_suffix(".json")  # what this version was seen to do


Versions = Mapping[str, str]  # of a package, by its name


@dataclass(frozen=True)
class Cell:
    """What came of one feature, when, and in which versions."""

    outcome: Outcome
    detail: str
    typical: float | None = None  # error as a multiple of the precision's own noise: median and worst position
    worst: float | None = None
    date: str = ""
    versions: Versions = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """Whether a deliberate fault was caught, when, and in which versions."""

    caught: bool
    date: str = ""
    versions: Versions = field(default_factory=dict)


@dataclass
class ModelResult:
    """One row of the table: a model on a chip. Its cells may be of several days and versions."""

    name: str
    group: str
    chip: str
    dtype: str | None = None
    cells: dict[str, Cell] = field(default_factory=dict)
    faults: dict[str, Trial] = field(default_factory=dict)  # by the deliberate fault's name
    architecture: str = ""  # what such a model's config.json names under "architectures"

    @property
    def good(self) -> bool:
        return all(cell.outcome != "fails" for cell in self.cells.values()) and all(
            trial.caught for trial in self.faults.values()
        )

    @property
    def dates(self) -> tuple[str, str] | None:
        """The first and the last day that its cells were run on; None where no cell says."""
        days = sorted(cell.date for cell in self.cells.values() if cell.date)
        return (days[0], days[-1]) if days else None


def shipped() -> dict[tuple[str, str], ModelResult]:
    """The results that ship with this version, by (row, chip)."""
    return load(SHIPPED)


# Chips that run the same operators are stood for by the one that results are of.
STANDS_FOR: Mapping[str, str] = {"310p": "310P3", "910b": "910B3", "910_93": "910B3"}
# Architectures that also see, and the one that their language model has when it is served alone.
LANGUAGE_PART: Mapping[str, str] = {
    "Qwen3_5ForConditionalGeneration": "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForConditionalGeneration": "Qwen3_5MoeForCausalLM",
    "Gemma3ForConditionalGeneration": "Gemma3ForCausalLM",
    "Mistral3ForConditionalGeneration": "MistralForCausalLM",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a structure on a chip: run, refused with the reason, or not run yet."""

    outcome: Literal["run", "refused", "not run yet"]
    detail: str
    rows: tuple[str, ...] = ()


def standing(
    shape: ModelShape,
    chip: ChipSpec,
    rows: Iterable[ModelResult] | None = None,
    registry: registry_results.Results | None = None,
) -> Standing:
    """Whether a model's structure was run on this chip, from results; never inferred from another structure's.

    rows: of the table of models, whose sizes are the published model's; registry: one for each of vLLM's
    architectures, with the configuration class's own defaults. None: those that ship.
    """
    if reason := not_run(shape.stored, chip) or refusal(shape.architecture):
        return Standing("refused", reason)
    seen = STANDS_FOR.get(chip.family, "")
    rows = shipped().values() if rows is None else rows
    here = [row for row in rows if row.chip == seen]
    found, part = [row for row in here if row.architecture == shape.architecture], "structure"
    if not found and shape.architecture in LANGUAGE_PART:
        found = [row for row in here if row.architecture == LANGUAGE_PART[shape.architecture]]
        part = "language model, without pictures,"
    wrong = [row.name for row in found if not row.good]
    names = tuple(row.name for row in found)
    if found and not wrong:
        return Standing("run", f"its {part} was run on an emulated {seen} (`ascend models {names[0]}`)", names)
    if wrong:
        return Standing("refused", f"its {part} gave wrong answers on an emulated {seen}: {', '.join(wrong)}", names)
    registry = registry_results.load() if registry is None else registry
    if (seen_there := registry.get((shape.architecture, seen))) is not None:
        if seen_there.outcome == "right":
            return Standing("run", f"its architecture was run as a tiny model on an emulated {seen}")
        if seen_there.outcome == "refused":
            return Standing("refused", seen_there.detail)
        if seen_there.outcome == "wrong":
            return Standing("refused", f"its architecture gave wrong answers on an emulated {seen}")
    return Standing(
        "not run yet", f"{shape.architecture} has not been run on {chip.name}: it may work, nobody has seen it"
    )


def load(path: Path) -> dict[tuple[str, str], ModelResult]:
    """Results by (model, chip); empty if there are none yet."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {document.get('schema')!r}, this version writes {SCHEMA!r}: delete it.")
    versions = document["versions"]
    return {(row["name"], row["chip"]): _row(row, versions) for row in document["results"]}


def _row(row: dict[str, Any], versions: list[Versions]) -> ModelResult:
    """A stored row; what ran in the same versions shares an entry of the document's list."""

    def read(stored: dict[str, Any]) -> dict[str, Any]:
        return {**stored, "versions": versions[stored["versions"]]}

    cells = {name: Cell(**read(cell)) for name, cell in row["cells"].items()}
    faults = {name: Trial(**read(trial)) for name, trial in row["faults"].items()}
    return ModelResult(**{**row, "cells": cells, "faults": faults})


def merge(results: Mapping[tuple[str, str], ModelResult], new: ModelResult) -> dict[tuple[str, str], ModelResult]:
    """The results with a new one added: it replaces the cells that it has, and keeps the others of the same row."""
    old = results.get((new.name, new.chip))
    if old is not None:
        new = ModelResult(
            new.name,
            new.group,
            new.chip,
            new.dtype or old.dtype,
            {**old.cells, **new.cells},
            {**old.faults, **new.faults},
            new.architecture or old.architecture,
        )
    return {**results, (new.name, new.chip): new}


def settled(results: Mapping[tuple[str, str], ModelResult], name: str, chip: str) -> set[str]:
    """Features and faults of a row that need no other run: anything but a failure."""
    row = results.get((name, chip))
    if row is None:
        return set()
    good = {feature for feature, cell in row.cells.items() if cell.outcome != "fails"}
    return good | {fault for fault, trial in row.faults.items() if trial.caught}


def store(path: Path, results: Mapping[tuple[str, str], ModelResult]) -> None:
    """Write results, sorted; versions are listed once and cells refer to them by their place in the list."""
    versions: list[Versions] = []

    def place(entry: Versions) -> int:
        if entry not in versions:
            versions.append(entry)
        return versions.index(entry)

    rows = [asdict(results[key]) for key in sorted(results)]
    for row in rows:
        for entry in (*row["cells"].values(), *row["faults"].values()):
            entry["versions"] = place(entry["versions"])
    document = {"schema": SCHEMA, "versions": versions, "results": rows}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
