"""Results as Markdown: a summary, then the tables that vLLM prints, concurrency side by side."""

from __future__ import annotations

from ascend_cli.bench.judge import Slo, notes_of
from ascend_cli.bench.results import Row
from ascend_cli.bench.summary import HEADS, figures
from ascend_cli.bench.table import serving_table, throughput_table


def markdown_report(rows: list[Row], title: str, slo: Slo | None = None) -> str:
    """The whole report. Rows of one model and size stand together."""
    parts = [f"# {title}", "", _summary(rows, slo), ""]
    for name, group in groups(rows).items():
        parts += [f"## {name}", ""]
        serving = [row for row in group if row.kind == "serve"]
        offline = [row for row in group if row.kind == "throughput"]
        if serving:
            parts += ["### Online", "", _side_by_side(serving, slo), ""]
        for row in offline:
            load = row.workload
            parts += [
                f"### Offline: {load.input_tokens} tokens in, {load.output_tokens} out, {load.prompts} prompts",
                "",
            ]
            parts += ["```", throughput_table(row), "```", ""]
        notes = [f"* {row.workload.label}: {note}" for row in group for note in notes_of(row)]
        parts += [*notes, ""] if notes else []
        parts += [f"Measured {group[0].created} with {group[0].engine}.", ""]
    return "\n".join(parts)


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by what ran where, in the order given."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        emulated = ", emulated" if row.emulated else ""
        label = f" ({row.label})" if row.label else ""
        chips = f"{row.size_text} x {row.chip or 'unknown chip'}"
        found.setdefault(f"{row.model} on {chips}{emulated}{label}", []).append(row)
    return found


def _summary(rows: list[Row], slo: Slo | None) -> str:
    head = [*HEADS, f"goodput req/s ({slo.text})"] if slo else HEADS
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cells(row, slo)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row, slo: Slo | None) -> list[str]:
    return [
        row.model + (" (emulated)" if row.emulated else "") + (" **refused**" if row.refused else ""),
        f"{row.size_text} x {row.chip or '?'}",
        *(cell or "" for cell in figures(row, slo)),
    ]


def _side_by_side(rows: list[Row], slo: Slo | None) -> str:
    """The tables of two rows in one line, as operators publish them: code blocks in a Markdown table."""
    parts = []
    for start in range(0, len(rows), 2):
        pair = rows[start : start + 2]
        heads = "".join(f"<th>{_method(row)}</th>" for row in pair)
        tables = "".join(f"<td>\n\n```\n{serving_table(row, slo)}\n```\n\n</td>" for row in pair)
        parts.append(f"<table>\n<tr>{heads}</tr>\n<tr>{tables}</tr>\n</table>")
    return "\n\n".join(parts)


def _method(row: Row) -> str:
    load = row.workload
    at_once = (
        f" --max-concurrency {load.concurrency}"
        if load.concurrency
        else f" --request-rate {load.request_rate:g}"
        if load.request_rate
        else ""
    )
    return f"--num-prompts {load.prompts}{at_once}"
