"""All cases, by group, as far as a chip has them. Imports torch, but opens no device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ascend_cli.doctor.probe import (
    cases_attention,
    cases_copies,
    cases_delta_rule,
    cases_elements,
    cases_experts,
    cases_forms,
    cases_graph,
    cases_indexing,
    cases_layer,
    cases_products,
    cases_quantized,
    cases_timing,
    collectives,
)
from ascend_cli.doctor.probe.case import GROUPS, Case
from ascend_facts import chips
from ascend_facts.chips import ChipSpec
from ascend_plugin import detection

Cases = Callable[[ChipSpec], Iterator[Case]]

SOURCES: dict[str, Cases] = {
    "copies": cases_copies.copies,
    "integers": cases_elements.integers,
    "elements": cases_elements.elements,
    "forms": cases_forms.forms,
    "layer": cases_layer.layer,
    "products": cases_products.products,
    "attention": cases_attention.attention,
    "delta rule": cases_delta_rule.delta_rule,
    "indexing": cases_indexing.indexing,
    "quantized": cases_quantized.quantized,
    "experts": cases_experts.experts,
    "timing": cases_timing.timing,
    "graph": cases_graph.graph,
    "collectives": collectives.collectives,
    "random": cases_elements.random_numbers,
}
OWN_DEVICES = {"collectives"}  # its cases start processes of their own
assert tuple(SOURCES) == GROUPS


def chip_here() -> ChipSpec:
    """The chip of the table, whatever an earlier probe found: this one is to find out anew."""
    name = detection.soc_version()
    if name is None:
        raise detection.NoChip("No Ascend chip found: run `ascend doctor`.")
    return chips.find(name)


def cases_of(group: str, chip: ChipSpec) -> list[Case]:
    return list(SOURCES[group](chip))
