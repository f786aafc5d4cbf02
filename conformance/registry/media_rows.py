"""What came of vLLM's architectures with media, from their rows of the table: none of them is run a second time."""

from __future__ import annotations

from collections.abc import Iterable

from ascend_facts.model_results import ModelResult
from ascend_facts.refused import refusal
from ascend_facts.registry_results import UNBUILT, Outcome, RegistryResult
from conformance.registry.names import of_the_same_class, registered, unbuildable, with_media

KIND = "multimodal"


def media_results(rows: Iterable[ModelResult], chips: Iterable[str]) -> list[RegistryResult]:
    """A result for what has a row, is refused by name or cannot be built, on each chip; the others were not run.

    A name without a row has those of the other names of its class in vLLM.
    """
    by_place: dict[tuple[str, str], list[ModelResult]] = {}
    for row in rows:
        by_place.setdefault((row.architecture, row.chip), []).append(row)
    found = []
    for name in kinds():
        known, missing = refusal(name, with_media()[name]), unbuildable(name)
        for chip in chips:
            of_rows = by_place.get((name, chip), [])
            for other in of_the_same_class()[name] if not of_rows else ():
                of_rows = of_rows + by_place.get((other, chip), [])
            if known is not None:
                notes = () if missing is None else (UNBUILT,)
                found.append(RegistryResult(name, KIND, chip, "refused", known, notes))
            elif of_rows:
                found.append(RegistryResult(name, KIND, chip, *outcome_of_rows(of_rows)))
            elif missing is not None:
                found.append(RegistryResult(name, KIND, chip, "not built", missing))
    return found


def outcome_of_rows(rows: Iterable[ModelResult]) -> tuple[Outcome, str]:
    """The worst that came of any cell: wrong, then neither; right where anything passed and nothing failed."""
    cells = [cell for row in rows for cell in row.cells.values()]
    failed = [cell for cell in cells if cell.outcome == "fails"]
    if failed:
        judged = [cell for cell in failed if cell.typical is not None]
        return ("wrong", judged[0].detail) if judged else ("neither", failed[0].detail)
    if any(cell.outcome == "pass" for cell in cells):
        return "right", ""
    return "refused", next((cell.detail for cell in cells if cell.outcome == "refused"), "")


def kinds() -> dict[str, str]:
    """Of those that no other table of vLLM's has as well."""
    return {name: KIND for name in with_media() if name not in registered()}
