"""What came of running each architecture of vLLM's registry as a tiny model: kept as JSON that later runs add to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["right", "refused", "neither", "wrong", "not run", "not built"]
OUTCOMES: Mapping[Outcome, str] = {
    "right": "within the rounding noise of a float reference",
    "refused": "not run, with a reason, before weights were read",
    "neither": "ended in an error that tells its user nothing to do",
    "wrong": "ran, and its answers were not within the noise",
    "not run": "not run yet, or not since what it failed by was mended",
    "not built": "nothing at hand has its mathematics, so that no checkpoint could be made",
}
UNBUILT = "without a reference"  # a note on what was refused: nothing at hand could have built it either
SCHEMA = "ascend.registry/1"
SHIPPED = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class RegistryResult:
    """One architecture on one chip."""

    name: str
    kind: str  # text generation | pooling
    chip: str
    outcome: Outcome
    detail: str
    notes: tuple[str, ...] = ()  # what a right answer went without, such as graphs
    dtype: str | None = None
    typical: float | None = None  # error as a multiple of the precision's own noise: median and worst position
    worst: float | None = None
    faults: Mapping[str, bool] = field(default_factory=dict)  # deliberate fault -> was it caught
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.outcome not in ("neither", "wrong") and all(self.faults.values())


Results = Mapping[tuple[str, str], RegistryResult]


def load(path: Path = SHIPPED) -> dict[tuple[str, str], RegistryResult]:
    """Results by (architecture, chip); empty if there are none yet. Raises ValueError for another schema."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {document.get('schema')!r}, this version writes {SCHEMA!r}: delete it.")
    versions = document["versions"]
    rows = (
        RegistryResult(**{**row, "notes": tuple(row["notes"]), "versions": versions[row["versions"]]})
        for row in document["results"]
    )
    return {(row.name, row.chip): row for row in rows}


def store(path: Path, results: Results) -> None:
    """Write results, sorted; versions are listed once and rows refer to them by their place in the list."""
    versions: list[Mapping[str, str]] = []
    rows = []
    for key in sorted(results):
        row = asdict(results[key])
        if row["versions"] not in versions:
            versions.append(row["versions"])
        rows.append({**row, "versions": versions.index(row["versions"])})
    document = {"schema": SCHEMA, "versions": versions, "results": rows}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def counts(results: Iterable[RegistryResult], known: Mapping[str, str]) -> dict[tuple[str, str], Counter[str]]:
    """How many architectures ended in which way, by (chip, kind); known: every architecture's kind.

    UNBUILT counts, once more, those of the refused that could not have been built.
    """
    by_place = {(row.chip, row.name): row for row in results}
    found: dict[tuple[str, str], Counter[str]] = {}
    for chip in {chip for chip, _ in by_place}:
        for name, kind in known.items():
            row = by_place.get((chip, name))
            counted = found.setdefault((chip, kind), Counter())
            counted["not run" if row is None else row.outcome] += 1
            counted[UNBUILT] += row is not None and row.outcome == "refused" and UNBUILT in row.notes
    return dict(sorted(found.items()))


def share_right(counted: Counter[str]) -> float:
    """Share of the architectures that can be built whose answers are right; the refused among them are not."""
    built = sum(counted[outcome] for outcome in OUTCOMES) - counted["not built"] - counted[UNBUILT]
    return counted["right"] / built if built else 0.0
