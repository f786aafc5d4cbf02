"""The operator table: every form in which the plugin launches an operator, and what is known of it on each chip.

A form is an operator with the types, formats, ranks and layouts of its tensors, as the emulator's counters write it:

    aclnnMatmulWeightNz self=float16[2] mat2=float16:NZ[2] out=float16[2]      v behind a rank: the tensor is a view

operators.toml has what documents and sources say; evidence.toml has runs of `ascend doctor --probe` on cards, put there
by `ascend doctor --import`. docs/hardware.md is written from both (operators_page.py).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ascend_facts import chips

TABLE = Path(__file__).with_name("operators.toml")
EVIDENCE = Path(__file__).with_name("evidence.toml")
FAMILIES = ("310p", "910b")  # on which launches are recorded
TENSOR = re.compile(r"(?P<name>[^\s=]+)=(?P<kind>[^\s\[]+)(?:\[(?P<rank>\d+)\](?P<view>v?))?")

# How well a form is known on a family, best first.
SILICON, PROVEN, DOCUMENTED, AGAINST, UNKNOWN = "silicon", "proven", "documented", "against", "unknown"


class OperatorTableError(ValueError):
    """operators.toml or evidence.toml does not have the fields that it should."""


@dataclass(frozen=True)
class Form:
    """One choice of types and formats: "self=int64 other=int64 out=int64", and in which ranks it is launched."""

    tensors: str
    families: tuple[str, ...]
    layouts: tuple[str, ...]  # ranks of the tensors, one after another: "2 2 1", "2v 2 1"


@dataclass(frozen=True)
class Operator:
    """What the forms of one operator share."""

    name: str
    documented: tuple[str, ...]  # families that its document names
    document: str  # repository and path; empty: none was found
    source: str  # of op_api, op_host or the kernel; empty: none was found
    test: str  # a test of this repository that enforces what is said here; empty: none of its own
    forms: tuple[Form, ...]
    limits: str = ""
    limits_zh: str = ""
    proven: Mapping[str, str] = field(default_factory=dict)  # by family: who is known to run it on the silicon

    def level(self, family: str, seen: Mapping[str, Iterable[str]]) -> str:
        """How well it is known on a family; seen: operators that ran right on cards, by family."""
        if self.name in seen.get(family, ()):
            return SILICON
        if family in self.proven:
            return PROVEN
        if family in self.documented:
            return DOCUMENTED
        return AGAINST if self.document else UNKNOWN


@dataclass(frozen=True)
class Evidence:
    """One run of the probe on a card."""

    soc: str
    cann: str
    driver: str
    date: str
    family: str
    cases: int
    right: int
    operators: tuple[str, ...]  # of the table, whose forms all ran right there
    findings: tuple[str, ...]


def load(path: Path = TABLE) -> tuple[Operator, ...]:
    """The rows of a table. Raises OperatorTableError."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["operator"]
    try:
        return tuple(_operator(row) for row in rows)
    except (TypeError, KeyError) as error:
        raise OperatorTableError(f"{path.name}: {error}") from error


def _operator(row: Mapping[str, Any]) -> Operator:
    forms = tuple(
        Form(form["tensors"], tuple(form["families"]), tuple(form["layouts"])) for form in row.get("form", ())
    )
    rest = _frozen({key: value for key, value in row.items() if key != "form"})
    return Operator(forms=forms, **rest)


@cache
def operators() -> Mapping[str, Operator]:
    """The release's table, by name."""
    return {operator.name: operator for operator in load()}


def evidence(path: Path = EVIDENCE) -> tuple[Evidence, ...]:
    """Runs on cards. Raises OperatorTableError."""
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("run", [])
    try:
        return tuple(Evidence(**_frozen(row)) for row in rows)
    except TypeError as error:
        raise OperatorTableError(f"{path.name}: {error}") from error


def _frozen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def seen_on_silicon(runs: Iterable[Evidence]) -> dict[str, set[str]]:
    """Operators that ran right on a card, by family."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        seen.setdefault(run.family, set()).update(run.operators)
    return seen


def split(form: str) -> tuple[str, str, str]:
    """A counter's form as (operator, tensors, layout). Raises ValueError for anything else."""
    name, _, rest = form.partition(" ")
    found = list(TENSOR.finditer(rest))
    if not name or (rest and " ".join(match.group() for match in found) != rest):
        raise ValueError(f"{form!r} is no form of an operator.")
    tensors = " ".join(f"{match['name']}={match['kind']}" for match in found)
    layout = " ".join(f"{match['rank']}{match['view']}" for match in found if match["rank"] is not None)
    return name, tensors, layout


def without_row(forms: Iterable[str], chip: str, table: Mapping[str, Operator] | None = None) -> list[str]:
    """Those of a counter's forms that the table does not have for this chip's family, in their order."""
    table = operators() if table is None else table
    family = chips.find(chip).family
    missing = []
    for text in forms:
        name, tensors, layout = split(text)
        known = (form for form in table[name].forms if form.tensors == tensors) if name in table else ()
        if not any(family in form.families and layout in form.layouts for form in known):
            missing.append(text)
    return missing


def launched_on(family: str, table: Mapping[str, Operator] | None = None) -> set[tuple[str, str]]:
    """(operator, tensors) of every form that is launched on a family."""
    table = operators() if table is None else table
    return {
        (name, form.tensors) for name, operator in table.items() for form in operator.forms if family in form.families
    }
