"""Reports: Markdown in the shape of vLLM's printed tables, and a page of HTML that stands alone."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ascend_cli.bench.html import html_report
from ascend_cli.bench.judge import Slo, roofline_share
from ascend_cli.bench.markdown import markdown_report
from ascend_cli.bench.published import published_rows
from ascend_cli.bench.svg import HEIGHT, WIDTH, Series, bar_chart, line_chart, ticks

from .conftest import Ascend


def test_report_is_written(ascend: Ascend, tmp_path: Path) -> None:
    answer = ascend("bench", "report", "atlas-300i-duo", "-o", tmp_path / "report")
    assert answer.code == 0
    assert (tmp_path / "report.md").exists()
    assert (tmp_path / "report.html").exists()


def test_markdown_shows_the_published_tables_side_by_side() -> None:
    text = markdown_report(published_rows(), "Page")
    assert "<th>--num-prompts 20 --max-concurrency 1</th><th>--num-prompts 200 --max-concurrency 8</th>" in text
    assert "| qwen3-32b | 4 x 310P3 | 256/128 | 8 | 0.37 | 47.31 | one run | 2212.6 | 149.52 | 52.8% |" in text
    assert "--input-len was ignored" in text


class Checker(HTMLParser):
    """Open tags that nothing closes, and anything that would be fetched."""

    VOID = frozenset(("meta", "br", "circle", "rect", "line", "polyline", "polygon"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open, tag
        assert self.open.pop() == tag


def test_html_stands_alone_and_is_well_formed() -> None:
    page = html_report(published_rows(), "Page <&>", Slo.parse("ttft:500"))
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.fetched == []
    assert "<script" not in page and "@import" not in page and "url(" not in page
    assert "Page &lt;&amp;&gt;" in page


def captions(page: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page)


def test_html_has_the_plots() -> None:
    rows = published_rows()
    other_chip = replace(rows[0], chip="910B3", tensor_parallel_size=1, emulated=True)
    found = captions(html_report([*rows, other_chip, replace(rows[0], emulated=True)], "Page"))
    for wanted in (
        "Throughput against latency",
        "Time to first token",
        "Time per output token",
        "Share of the roofline",
        "Chips side by side",
    ):
        assert any(caption.startswith(wanted) for caption in found), wanted


def test_refused_rows_are_marked_and_not_plotted() -> None:
    row = replace(published_rows()[0], refused="1,024 input tokens were processed")
    page = html_report([row], "Page")
    assert captions(page) == []
    assert 'class="tag refused"' in page
    assert "left out of the plots" in page


def test_emulated_rows_are_marked() -> None:
    page = html_report([replace(published_rows()[0], emulated=True, clock="functional")], "Page")
    assert 'class="tag emulated"' in page
    assert "say nothing about a chip" in page


def svg_of(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg viewBox.*</svg>(?=<ul|</figure>)", figure)[0])


@pytest.mark.parametrize(
    "figure",
    [
        line_chart(
            "t",
            [Series("a", ((1, 5), (8, 9000))), Series("b", ((1, 40),), ("c=1",))],
            "x",
            "y",
            category_x=True,
            log_y=True,
        ),
        line_chart("t", [Series("a", ((10, 0.5), (200, 140)))], "x", "y"),
        bar_chart("t", ["one two three four", "b"], [("s", [1.0, None]), ("u", [2.0, 3.0])], "y", "%"),
    ],
)
def test_everything_is_drawn_inside_the_picture(figure: str) -> None:
    for element in svg_of(figure).iter():
        for name, limit in (("x", WIDTH), ("cx", WIDTH), ("x1", WIDTH), ("y", HEIGHT), ("cy", HEIGHT), ("y1", HEIGHT)):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= limit + 1
        for pair in element.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert -6 <= x <= WIDTH + 6 and -6 <= y <= HEIGHT + 6


def test_figures_over_bars_do_not_run_into_one_another() -> None:
    """Ten groups of two bars, the most that a chart has; the published figures ran together with seven."""
    names, values = [f"g{index}" for index in range(10)], [12.345] * 10
    drawn = svg_of(bar_chart("t", names, [("s", values), ("u", values)], "y", "%"))
    figures = [one for one in drawn.iter() if one.get("class") == "label"]
    places = []
    for one in figures:
        size = float(re.search(r"font-size:([\d.]+)px", one.attrib["style"])[1])
        half = len(one.text or "") * size * 0.55 / 2  # a digit of a sans-serif face is 0.55 em wide
        places.append((float(one.attrib["x"]) - half, float(one.attrib["x"]) + half))
    assert len(places) == 20 and {one.text for one in figures} == {"12%"}
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(sorted(places)))


def test_a_line_does_not_leave_its_point_through_the_label() -> None:
    drawn = svg_of(line_chart("t", [Series("a", ((10, 10), (60, 90)), ("c=1", "c=8"))], "x", "y"))
    anchors = {one.text: one.get("text-anchor") for one in drawn.iter() if one.get("class") == "label"}
    assert anchors["c=1"] == "end"


def test_no_points_is_no_chart() -> None:
    assert line_chart("t", [Series("a", ())], "x", "y") == ""
    assert bar_chart("t", ["a"], [("s", [None])], "y") == ""


@pytest.mark.parametrize(("low", "high"), [(0, 0.001), (0, 7), (0, 149.52), (0, 2212.6), (3, 3)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high
    assert 2 <= len(marks) <= 9


def test_one_offline_floor_for_reports_and_benchmarks() -> None:
    """Two definitions of one figure stood in two tables."""
    from benchmarks.published import offline_tables

    rows = [row for row in published_rows() if row.kind == "throughput"]
    shown = [float(line.split("|")[-2]) for line in offline_tables(rows, []) if line.startswith("| qwen")]
    for row, floor in zip(rows, shown, strict=True):
        share = roofline_share(row)
        assert share is not None and share.offline_share is not None
        reached = row.typical.output_tokens_per_s / share.offline_share
        assert floor == pytest.approx(reached, abs=0.51)
