"""Every public measurement of ascend_facts/calibration.toml beside what the model of time says of it.

A row of an operator is one kernel or one collective. A row of an engine is a decode step of that engine, or the output
tokens a second of a closed loop: prompts of all requests one after the other, then decode steps of all. In mode
"piecewise" the host launches what lies between the graphs, so a step takes the longer of the chip's work and of the
host's: a time for each layer and one for each request, fitted to two rows of one engine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ascend_facts
from ascend_cli.registry.cards import find_model
from ascend_facts.chips import ChipSpec, find
from ascend_facts.roofline import Placement
from ascend_facts.time_model import collective_us, kernel_us, product_operations

CALIBRATION = Path(ascend_facts.__file__).with_name("calibration.toml")


@dataclass(frozen=True)
class Constants:
    """Of the model of time by family, and of hosts: `waits_us` of the operators' source, and of engines in pieces."""

    families: Mapping[str, Mapping[str, float]]
    waits_us: float
    host_ms_a_layer: float
    host_ms_a_request: float

    def apply(self, chip: ChipSpec) -> ChipSpec:
        values = self.families[chip.family]
        return replace(
            chip,
            launch_us=values["launch_us"],
            bandwidth_share=values["bandwidth_share"],
            cube_share=values["cube_share"],
            l2_share=values["l2_share"],
            card_link=replace(chip.card_link, latency_us=values["step_us"]),
            node_link=replace(chip.node_link, latency_us=values["step_us"]),
        )


@dataclass(frozen=True)
class Measurement:
    """A row of calibration.toml: an operator in us, an engine in ms or tokens a second."""

    kind: str
    facts: Mapping[str, Any]
    source: str

    @property
    def name(self) -> str:
        if self.kind == "operator":
            return str(self.facts["name"])
        facts, note = self.facts, self.facts.get("note", "")
        chips = f"{facts['ranks']} chip{'s' if facts['ranks'] > 1 else ''}"
        name = f"{facts['model']} {facts['weights']}, {chips}, {facts['requests']} at once, {facts['mode']}"
        return f"{name} ({note})" if note else name

    @property
    def figure(self) -> str:
        return next(name for name in ("time_us", "tpot_ms", "output_tokens_per_s") if name in self.facts)

    @property
    def measured(self) -> float:
        return float(self.facts[self.figure])

    @property
    def in_fit(self) -> bool:
        return bool(self.facts["fit"])

    @property
    def was_found(self) -> bool:
        return bool(self.facts.get("found", True))

    def error(self, constants: Constants, chips: Mapping[str, ChipSpec]) -> float:
        return predict(self, constants, chips) / self.measured - 1


@dataclass(frozen=True)
class Calibration:
    rows: list[Measurement]
    chips: Mapping[str, ChipSpec] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def read(path: Path = CALIBRATION) -> Calibration:
    """All rows in file order, and the chips they name. Raises KeyError where a row names no source."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    sources = document["sources"]
    rows = [
        Measurement(kind, facts, sources[facts["source"]])
        for kind in ("operator", "engine")
        for facts in document[kind]
    ]
    others = {
        name: replace(find(facts["like"]), name=name, **{key: value for key, value in facts.items() if key != "like"})
        for name, facts in document["other_chips"].items()
    }
    names = {row.facts["chip"] for row in rows} - others.keys()
    return Calibration(rows, others | {name: find(name) for name in names}, sources)


def predict(row: Measurement, constants: Constants, chips: Mapping[str, ChipSpec]) -> float:
    """What the model says of a row, in the row's unit."""
    chip = constants.apply(chips[row.facts["chip"]])
    return _operator_us(row.facts, constants, chip) if row.kind == "operator" else _engine(row, constants, chip)


def _operator_us(facts: Mapping[str, Any], constants: Constants, chip: ChipSpec) -> float:
    host_us = constants.waits_us if facts.get("waits") else 0.0
    if "collective" in facts:
        link = chip.link_of(facts["ranks"])
        return host_us + collective_us(chip, link, facts["collective"], facts["ranks"], facts["size_bytes"])
    if "rows" not in facts:
        return host_us + kernel_us(chip, facts["size_bytes"])
    rows, columns, depth = facts["rows"], facts["columns"], facts["depth"]
    batch, bits = facts.get("batch", 1), facts.get("bits", 16)
    size_bytes = batch * ((rows * depth + depth * columns) * bits / 8 + rows * columns * 2)
    return host_us + kernel_us(chip, size_bytes, product_operations(chip, rows, columns, depth, batch, bits), bits)


def _engine(row: Measurement, constants: Constants, chip: ChipSpec) -> float:
    facts = row.facts
    place = Placement(find_model(facts["model"]).shape, chip, facts["ranks"], facts["weights"])
    requests: int = facts["requests"]
    launches: float = facts["launches"]
    step_ms = place.modeled_decode_ms(requests, facts["context"], launches)
    if facts["mode"] == "piecewise":
        host_ms = constants.host_ms_a_layer * place.shape.layers + constants.host_ms_a_request * requests
        step_ms = max(step_ms, host_ms)
    if row.figure == "tpot_ms":
        return step_ms
    prompts_ms = requests * place.modeled_prefill_ms(facts["input_tokens"], launches)
    output_tokens: int = facts["output_tokens"]
    tokens: int = requests * output_tokens
    return 1e3 * tokens / (prompts_ms + output_tokens * step_ms)
