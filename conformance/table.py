"""docs/models.md: the list of supported models, written from results and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ascend_facts.model_results import FEATURES, Cell, ModelResult
from conformance.architectures import Architecture
from conformance.compare import LIMIT
from conformance.faults import MEANINGS

SYMBOLS = {"pass": "pass", "refused": "refused", "fails": "**fails**", "impossible": "—"}

HEADER = """\
# Models

Written by `python -m conformance` from its results; nothing here is filled in by hand.

For every architecture a small checkpoint is made on the spot: the published model's structure (query heads a key head,
head size, norms, biases, tied embeddings, rotary scaling, window, routing) with fewer layers and seeded weights whose
logits say something. vLLM runs it on emulated chips, and each log-probability is compared with transformers in fp32 on
the same tokens. An answer passes if its error stays within {limit} times the rounding noise of the precision, which is
measured on the same model and tokens. The number beside `pass` is the median error in units of that noise: about 1 is
what an honest implementation has. Passing says that the mathematics is right; speed and memory at full size are other
questions.
"""


def render(results: Mapping[tuple[str, str], ModelResult], known: Mapping[str, Architecture]) -> str:
    """The page for these results, in the order of the architectures."""
    rows = [results[key] for key in results]
    chips = sorted({row.chip for row in rows})
    parts = [HEADER.format(limit=f"{LIMIT:.0f}"), _feature_list()]
    for chip in chips:
        of_chip = {row.name: row for row in rows if row.chip == chip}
        parts.append(_chip_section(chip, [of_chip[name] for name in known if name in of_chip], known))
    parts.append(_fault_section(rows))
    return "\n".join(part for part in parts if part)


def _feature_list() -> str:
    return "\n".join(["What a column shows:", "", *(f"* **{name}**: {text}" for name, text in FEATURES.items()), ""])


def _chip_section(chip: str, rows: list[ModelResult], known: Mapping[str, Architecture]) -> str:
    lines = [f"## {chip}", ""]
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        columns = [name for name in FEATURES if any(name in row.cells for row in members)]
        lines += [f"### {group.capitalize()}", ""]
        lines.append("| model | dtype | " + " | ".join(columns) + " | date |")
        lines.append("|---" * (len(columns) + 3) + "|")
        for row in members:
            cells = " | ".join(_cell(row.cells.get(column)) for column in columns)
            name = f"{known[row.name].covers} (`{row.name}`)"
            lines.append(f"| {name} | {row.dtype or ''} | {cells} | {row.date} |")
        lines += ["", *_reasons(members)]
    versions = {f"{name} {version}" for row in rows for name, version in row.versions.items()}
    lines += ["Versions: " + ", ".join(sorted(versions)) + ".", ""] if versions else []
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    number = f" {cell.typical:.1f}" if cell.outcome in ("pass", "fails") and cell.typical is not None else ""
    return SYMBOLS[cell.outcome] + number


def _reasons(rows: Iterable[ModelResult]) -> list[str]:
    """One line for each reason why something does not pass, with the features that share it."""
    lines = []
    for row in rows:
        by_reason: dict[tuple[str, str], list[str]] = {}
        for feature, cell in row.cells.items():
            if cell.outcome != "pass":
                by_reason.setdefault((cell.outcome, cell.detail), []).append(feature)
        for (outcome, detail), features in by_reason.items():
            where = "" if len(features) == len(row.cells) else f" ({', '.join(features)})"
            lines.append(f"* `{row.name}`{where}: {outcome}: {detail}")
    return [*lines, ""] if lines else []


def _fault_section(rows: Iterable[ModelResult]) -> str:
    tried = [row for row in rows if row.faults]
    if not tried:
        return ""
    lines = [
        "## Can the check fail?",
        "",
        "Deliberate faults in what the engine was given, and whether the check caught them. Every row of the table has",
        "some (`python -m conformance NAME --only faults`); tried so far:",
    ]
    names = dict.fromkeys(fault for row in tried for fault in row.faults)
    lines += ["", *(f"* **{name}**: {MEANINGS[name]}" for name in names)]
    lines += ["", "| family | model | chip | caught | missed |", "|---|---|---|---|---|"]
    for row in tried:
        caught = ", ".join(fault for fault, found in row.faults.items() if found)
        missed = ", ".join(fault for fault, found in row.faults.items() if not found)
        lines.append(f"| {row.group} | `{row.name}` | {row.chip} | {caught} | {missed} |")
    return "\n".join([*lines, ""])
