"""Draw the Grafana dashboard's panels from a Prometheus that runs, as a page for a browser.

    .venv/bin/python scripts/dashboard_picture.py http://127.0.0.1:9090 [END] > dashboard.html

END is the last second shown, as `date +%s` counts; now, if it is not given. Grafana is on no package index. So
the dashboard's own queries are asked of a real Prometheus, and their answers drawn in its own grid; what Grafana
does beyond that (its look, its menus) is not shown.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from ascend_cli.bench.svg import number, ticks
from ascend_cli.deploy.dashboard import GRID_WIDTH, dashboard

SPAN_S, POINTS = 150.0, 75
HEIGHT, LEFT, TOP, BOTTOM = 150, 52, 8, 22
PAGE_WIDTH, GAP = 1416, 6  # as the style below has them
COLORS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9")
STYLE = """body{background:#111217;color:#ccccdc;font:13px sans-serif;margin:12px;width:1416px}
.grid{display:grid;grid-template-columns:repeat(24,1fr);gap:6px}h2{grid-column:1/-1;font-size:15px;margin:6px 0}
.p{background:#181b1f;border:1px solid #2c3235;padding:6px}.p b{display:block;margin-bottom:4px}
.l{font-size:11px;line-height:15px;display:flex;flex-wrap:wrap}
.l i{font-style:normal;margin-right:10px;white-space:nowrap}
text{fill:#9fa7b3;font-size:10px}
"""


def answers(prometheus: str, query: str, end_s: float) -> list[dict[str, Any]]:
    """Series of one query over the last minutes. Raises URLError where Prometheus does not answer."""
    asked = query.replace("$__rate_interval", "20s").replace("$model", ".*")
    parameters = {"query": asked, "start": end_s - SPAN_S, "end": end_s, "step": SPAN_S / POINTS}
    url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def series(prometheus: str, panel: dict[str, Any], end_s: float) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for target in panel["targets"]:
        for found in answers(prometheus, target["expr"], end_s):
            legend = target["legendFormat"]
            for label in re.findall(r"{{(\w+)}}", legend):
                legend = legend.replace(f"{{{{{label}}}}}", found["metric"].get(label, ""))
            yield legend, [(float(at), float(value)) for at, value in found["values"] if value != "NaN"]


def drawn(panel: dict[str, Any], lines: list[tuple[str, list[tuple[float, float]]]], end_s: float) -> str:
    width = int((PAGE_WIDTH + GAP) * panel["gridPos"]["w"] / GRID_WIDTH) - GAP - 14  # 14: borders and padding
    defaults = panel["fieldConfig"]["defaults"]
    scale = 100.0 if defaults["unit"] == "percentunit" else 1.0
    most = defaults.get("max") or max((value for _, points in lines for _, value in points), default=1.0) or 1.0
    marks = ticks(0.0, most * scale, 4)
    parts = []
    for mark in marks:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - mark / marks[-1])
        parts.append(f'<line x1="{LEFT}" x2="{width - 6}" y1="{y:.0f}" y2="{y:.0f}" stroke="#2c3235"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3:.0f}" text-anchor="end">{number(mark)}</text>')
    if not any(points for _, points in lines):
        parts.append(f'<text x="{(LEFT + width) // 2}" y="{HEIGHT // 2}" text-anchor="middle">no data</text>')
    for index, (_, points) in enumerate(lines):
        places = " ".join(
            f"{LEFT + (width - 6 - LEFT) * (1 - (end_s - at) / SPAN_S):.1f},"
            f"{TOP + (HEIGHT - TOP - BOTTOM) * (1 - value * scale / marks[-1]):.1f}"
            for at, value in points
        )
        color = COLORS[index % len(COLORS)]
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    for share in (0.0, 0.5, 1.0):
        at = time.strftime("%H:%M:%S", time.localtime(end_s - SPAN_S * (1 - share)))
        x = LEFT + (width - 6 - LEFT) * share
        anchor = ("start", "middle", "end")[int(share * 2)]
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{at}</text>')
    names = "".join(
        f'<i style="color:{COLORS[index % len(COLORS)]}">&#9632; {html.escape(name)}</i>'
        for index, (name, _) in enumerate(lines)
    )
    unit = {"percentunit": "%", "percent": "%", "celsius": "C", "watt": "W", "reqps": "1/s"}.get(defaults["unit"])
    title = panel["title"] + (f" ({unit or 's'})" if unit or defaults["unit"] == "s" else "")
    chart = f'<svg width="{width}" height="{HEIGHT}">{"".join(parts)}</svg>'
    return f'<b>{html.escape(title)}</b>{chart}<div class="l">{names}</div>'


def page(prometheus: str, end_s: float) -> str:
    parts = []
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            parts.append(f"<h2>{panel['title']}</h2>")
            continue
        inside = drawn(panel, list(series(prometheus, panel, end_s)), end_s)
        parts.append(f'<div class="p" style="grid-column:span {panel["gridPos"]["w"]}">{inside}</div>')
    title = dashboard()["title"]
    return f"<meta charset=utf-8><style>{STYLE}</style><b>{title}</b><div class=grid>{''.join(parts)}</div>"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Prints a page with the dashboard's panels, drawn from Prometheus.")
    parser.add_argument("prometheus", help="http://HOST:PORT")
    parser.add_argument("end", nargs="?", type=float, default=time.time(), help="seconds since 1970 (default: now)")
    asked = parser.parse_args()
    print(page(asked.prometheus.rstrip("/"), asked.end))
