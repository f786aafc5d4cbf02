"""The report as one HTML page that needs nothing else: summary, plots, the tables."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ascend_cli.bench.judge import Slo, goodput, notes_of, roofline_share
from ascend_cli.bench.markdown import groups
from ascend_cli.bench.results import Row
from ascend_cli.bench.summary import HEADS, figures
from ascend_cli.bench.svg import Series, bar_chart, line_chart
from ascend_cli.bench.table import serving_table, throughput_table

MOST_BARS = 10  # more groups than this no longer fit one chart legibly


def html_report(rows: list[Row], title: str, slo: Slo | None = None) -> str:
    """The whole page as text."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    charts = "".join(_charts(rows, slo))
    sections = "".join(_section(name, group, slo) for name, group in groups(rows).items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{_banner(rows)}{_summary(rows, slo)}\n"
        f'<div class="charts">{charts}</div>\n{sections}</body>\n</html>\n'
    )


def _banner(rows: list[Row]) -> str:
    lines = []
    if any(row.emulated for row in rows):
        lines.append("Rows marked emulated ran on a CPU: their times say nothing about a chip.")
    if any(row.refused for row in rows):
        lines.append("Rows marked refused did not measure what was asked; they are left out of the plots.")
    return "".join(f'<p class="banner">{escape(line)}</p>' for line in lines)


def series_name(row: Row) -> str:
    """What tells a line of a plot from the others."""
    parts = [f"{row.model} TP{row.size_text} {row.chip or ''}".strip()]
    parts.append(f"{row.workload.input_tokens}/{row.workload.output_tokens}")
    if row.label:
        parts.append(row.label)
    if row.emulated:
        parts.append("emulated")
    extra = [
        f"{name}={value}"
        for name, value in row.settings.items()
        if name not in ("flags", "root", "enforce_eager", "dtype", "tensor-parallel-size")
    ]
    return ", ".join([*parts, *extra])


def _charts(rows: list[Row], slo: Slo | None) -> list[str]:
    good = [row for row in rows if not row.refused]
    serving = [row for row in good if row.kind == "serve" and row.typical.tpot_ms and row.workload.concurrency]
    lines: dict[str, list[Row]] = {}
    for row in sorted(serving, key=lambda row: row.workload.concurrency or 0):
        lines.setdefault(series_name(row), []).append(row)
    return [
        _throughput_against_latency(lines),
        _against_concurrency("Time to first token against concurrency", "median TTFT, ms", lines, "ttft_ms"),
        _against_concurrency("Time per output token against concurrency", "median TPOT, ms", lines, "tpot_ms"),
        _roofline(good),
        _offline(good),
        _chips(good),
        _goodput(lines, slo),
    ]


def _throughput_against_latency(lines: dict[str, list[Row]]) -> str:
    series = [
        Series(
            name,
            tuple(
                (row.typical.tpot_ms.median, row.typical.output_tokens_per_s) for row in group if row.typical.tpot_ms
            ),
            tuple(f"c={row.workload.concurrency}" for row in group),
        )
        for name, group in lines.items()
    ]
    return line_chart("Throughput against latency", series, "median time per output token, ms", "output tokens/s")


def _against_concurrency(title: str, y_title: str, lines: dict[str, list[Row]], attribute: str) -> str:
    series = []
    for name, group in lines.items():
        points = [
            (float(row.workload.concurrency or 0), getattr(row.typical, attribute).median)
            for row in group
            if getattr(row.typical, attribute)
        ]
        series.append(Series(name, tuple(points)))
    values = [y for one in series for _, y in one.points]
    wide = bool(values) and min(values) > 0 and max(values) / min(values) > 20
    return line_chart(title, series, "requests at once", y_title, category_x=True, log_y=wide)


def _point_name(row: Row) -> str:
    load = f"c={row.workload.concurrency}" if row.workload.concurrency else "offline"
    mark = " emulated" if row.emulated else ""
    return f"{row.model} TP{row.size_text} {load}{mark}"


def _roofline(rows: list[Row]) -> str:
    names, decode, prefill = [], [], []
    for row in rows:
        share = roofline_share(row)
        if share is None or (share.decode_share is None and share.offline_share is None):
            continue
        names.append(_point_name(row))
        reached = share.decode_share if share.decode_share is not None else share.offline_share
        decode.append(100 * reached if reached is not None else None)
        prefill.append(100 * share.prefill_share if share.prefill_share is not None else None)
    names, decode, prefill = names[:MOST_BARS], decode[:MOST_BARS], prefill[:MOST_BARS]
    columns = [("decode, or the whole offline run", decode), ("prefill (at concurrency 1)", prefill)]
    return bar_chart("Share of the roofline", names, columns, "% of the chips' limit", "%") if names else ""


def _offline(rows: list[Row]) -> str:
    offline = [row for row in rows if row.kind == "throughput"][:MOST_BARS]
    names = [
        f"{row.model} TP{row.size_text} {row.workload.input_tokens}/{row.workload.output_tokens}" for row in offline
    ]
    values: list[float | None] = [row.typical.output_tokens_per_s for row in offline]
    return bar_chart("Offline throughput", names, [("output tokens/s", values)], "output tokens/s") if offline else ""


def _chips(rows: list[Row]) -> str:
    """The same point on different chips, wherever there are several."""
    names = list(dict.fromkeys(row.chip for row in rows if row.chip))
    points: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.chip and row.tensor_parallel_size and row.kind == "serve":
            emulated = " emulated" if row.emulated else ""
            point = f"{row.model} c={row.workload.concurrency}{emulated}"
            points.setdefault(point, {})[row.chip] = row.typical.output_tokens_per_s / row.tensor_parallel_size
    shared = {point: by_chip for point, by_chip in points.items() if len(by_chip) > 1}
    if not shared:
        return ""
    columns = [(chip, [by_chip.get(chip) for by_chip in shared.values()]) for chip in names]
    return bar_chart("Chips side by side", list(shared), columns, "output tokens/s a chip")


def _goodput(lines: dict[str, list[Row]], slo: Slo | None) -> str:
    if slo is None:
        return ""
    series = []
    for name, group in lines.items():
        points = []
        for row in group:
            reached = goodput(row.typical, slo)
            if reached is not None:
                points.append((float(row.workload.concurrency or 0), reached.requests_per_s))
        series.append(Series(name, tuple(points)))
    return line_chart(
        f"Goodput within {slo.text}", series, "requests at once", "requests/s within the SLO", category_x=True
    )


def _summary(rows: list[Row], slo: Slo | None) -> str:
    heads = [*HEADS, "goodput"] if slo else HEADS
    body = "".join(_summary_row(row, slo) for row in rows)
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f'<div class="scroll"><table class="summary"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _summary_row(row: Row, slo: Slo | None) -> str:
    marks = "".join(
        f' <span class="tag {name}">{name}</span>'
        for name, on in (("emulated", row.emulated), ("refused", bool(row.refused)))
        if on
    )
    cells = [
        f"{escape(row.model)}{marks}",
        f"{row.size_text} &times; {escape(row.chip or '?')}",
        *(cell or "&ndash;" for cell in figures(row, slo)),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _section(name: str, rows: list[Row], slo: Slo | None) -> str:
    tables = "".join(
        f"<pre>{escape(serving_table(row, slo) if row.kind == 'serve' else throughput_table(row))}</pre>"
        for row in rows
    )
    notes = "".join(f"<li>{escape(row.workload.label)}: {escape(note)}</li>" for row in rows for note in notes_of(row))
    measured = f"Measured {escape(rows[0].created)} with {escape(rows[0].engine)}."
    head = f'<h2>{escape(name)}</h2><div class="tables">{tables}</div>'
    return f'{head}<ul class="notes">{notes}</ul><p class="origin">{measured}</p>'
