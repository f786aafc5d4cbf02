"""docs/models.md and its Chinese twin: the list of supported models, written from results and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ascend_facts import registry_results
from ascend_facts.model_results import FEATURES, Cell, ModelResult, Outcome, Versions
from conformance.architectures import Architecture
from conformance.compare import LIMIT
from conformance.registry import page
from conformance.table_texts import TEXTS, Language, Texts


def write(
    target: Path,
    results: Mapping[tuple[str, str], ModelResult],
    known: Mapping[str, Architecture],
    registry: registry_results.Results | None = None,
) -> None:
    """The page, and the Chinese one in the folder `zh` beside it; registry: in the place of the shipped one's."""
    pages: tuple[tuple[Path, Language], ...] = ((target, "en"), (target.parent / "zh" / target.name, "zh"))
    for path, language in pages:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(results, known, language, registry), encoding="utf-8")


def render(
    results: Mapping[tuple[str, str], ModelResult],
    known: Mapping[str, Architecture],
    language: Language = "en",
    registry: registry_results.Results | None = None,
) -> str:
    """The page for these results in one language, in the order of the architectures; None: the shipped registry."""
    registry = registry_results.load() if registry is None else registry
    texts = TEXTS[language]
    rows = [results[key] for key in results]
    chips = sorted({row.chip for row in rows})
    parts = [texts.header.format(limit=f"{LIMIT:.0f}"), page.evidence(language)]
    parts += [page.named_releases(results, registry, language), page.registry_section(registry, language, results)]
    parts.append(_feature_list(texts))
    for chip in chips:
        of_chip = {row.name: row for row in rows if row.chip == chip}
        parts.append(_chip_section(chip, [of_chip[name] for name in known if name in of_chip], known, texts))
    parts.append(_fault_section(rows, texts))
    return "\n".join(part for part in parts if part)


def _feature_list(texts: Texts) -> str:
    lines = (f"* **{name}**: {texts.features[name]}" for name in FEATURES)
    return "\n".join([texts.features_title, "", *lines, ""])


def _chip_section(chip: str, rows: list[ModelResult], known: Mapping[str, Architecture], texts: Texts) -> str:
    lines = [f"## {chip}", ""]
    model, dtype, day = texts.row_columns
    versions = _by_frequency(rows)
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        columns = [name for name in FEATURES if any(name in row.cells for row in members)]
        lines += [f"### {texts.groups.get(group, group.capitalize())}", ""]
        lines.append(f"| {model} | {dtype} | " + " | ".join(columns) + f" | {day} |")
        lines.append("|---" * (len(columns) + 3) + "|")
        for row in members:
            cells = " | ".join(_cell(row.cells.get(column), versions, texts) for column in columns)
            name = f"{known[row.name].covers} (`{row.name}`)"
            lines.append(f"| {name} | {row.dtype or ''} | {cells} | {_days(row, texts)} |")
        lines += ["", *_reasons(members, texts)]
    for number, entry in enumerate(versions):
        named = ", ".join(f"{name} {version}" for name, version in sorted(entry.items())) or texts.unrecorded
        lines += [_mark(number) + (" " if number else "") + texts.versions.format(named), ""]
    return "\n".join(lines)


def _by_frequency(rows: Iterable[ModelResult]) -> list[Versions]:
    """The sets of versions that results are of, the one of most cells first: cells of the others bear a mark."""
    counts = Counter(tuple(sorted(cell.versions.items())) for row in rows for cell in row.cells.values())
    return [dict(entry) for entry, _ in counts.most_common()]


def _mark(number: int) -> str:
    """A superscript for all but the first."""
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number)) if number else ""


def _days(row: ModelResult, texts: Texts) -> str:
    first, last = row.dates or ("", "")
    return last if first == last else texts.days.format(first, last)


def _cell(cell: Cell | None, versions: Sequence[Versions], texts: Texts) -> str:
    if cell is None:
        return ""
    number = f" {cell.typical:.1f}" if cell.outcome in ("pass", "fails") and cell.typical is not None else ""
    return texts.outcomes[cell.outcome] + number + _mark(versions.index(cell.versions))


def _reasons(rows: Iterable[ModelResult], texts: Texts) -> list[str]:
    """One line for each reason why something does not pass, with the features that share it."""
    lines = []
    for row in rows:
        by_reason: dict[tuple[Outcome, str], list[str]] = {}
        for feature, cell in row.cells.items():
            if cell.outcome != "pass":
                by_reason.setdefault((cell.outcome, cell.detail), []).append(feature)
        for (outcome, detail), features in by_reason.items():
            where = "" if len(features) == len(row.cells) else f" ({', '.join(features)})"
            lines.append(f"* `{row.name}`{where}: {texts.outcomes[outcome].strip('*')}: {detail}")
    return [*lines, ""] if lines else []


def _fault_section(rows: Iterable[ModelResult], texts: Texts) -> str:
    tried = [row for row in rows if row.faults]
    if not tried:
        return ""
    lines = [*texts.faults_section]
    names = dict.fromkeys(fault for row in tried for fault in row.faults)
    lines += ["", *(f"* **{name}**: {texts.faults[name]}" for name in names)]
    lines += ["", f"| {' | '.join(texts.fault_columns)} |", "|---|---|---|---|---|"]
    for row in tried:
        caught = ", ".join(fault for fault, trial in row.faults.items() if trial.caught)
        missed = ", ".join(fault for fault, trial in row.faults.items() if not trial.caught)
        lines.append(f"| {texts.groups.get(row.group, row.group)} | `{row.name}` | {row.chip} | {caught} | {missed} |")
    return "\n".join([*lines, ""])
