"""Small charts as inline SVG: lines over a number axis and grouped bars. No script, no fonts, no network.

Colors come from CSS classes (`series-0` ...) so that one style sheet serves light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 68, 18, 16, 52
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MARKERS = ("circle", "square", "diamond", "triangle")
LABEL_SIZE, CHARACTER_WIDTH = 11.5, 6.6  # of a figure over a bar, in pixels
SERIES_COLORS = 8  # classes in the style sheet; more series start over with another marker


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line; a label on a point is printed beside it."""

    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover low to high, about `wanted` of them."""
    span = high - low or abs(high) or 1.0
    raw = span / wanted
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(step * index, 10) for index in range(first, last + 1)]


def number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str = "middle", css: str = "tick", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}"{extra}>{escape(text)}</text>'


def _frame(title: str, body: Sequence[str], legend: Sequence[str], names: bool, bars: bool = False) -> str:
    """A figure: its SVG with a description for screen readers, the legend below it."""
    items = "".join(
        f'<li><svg width="14" height="14" viewBox="-7 -7 14 14">{_marker(0, 0, index, bars)}</svg>{escape(name)}</li>'
        for index, name in enumerate(legend)
    )
    legend_html = f'<ul class="legend">{items}</ul>' if names else ""
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(body)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}{legend_html}</figure>"


def _marker(x: float, y: float, series: int, square: bool = False) -> str:
    css = f"mark series-{series % SERIES_COLORS}"
    shape = "square" if square else MARKERS[series % len(MARKERS)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{css}"/>'
    if shape == "square":
        return f'<rect x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2" class="{css}"/>'
    points = [(0, -5), (5, 0), (0, 5), (-5, 0)] if shape == "diamond" else [(0, -5), (5, 4), (-5, 4)]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
    return f'<polygon points="{path}" class="{css}"/>'


def _y_axis(values: Sequence[float], title: str, is_log: bool = False) -> tuple[list[str], list[float]]:
    marks = _log_ticks(min(values), max(values)) if is_log else ticks(0.0, max(values) * 1.05)
    body = []
    for mark in marks:
        y = _y(mark, marks, is_log)
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        body.append(_text(LEFT - 8, y + 4, number(mark), "end"))
    middle = TOP + PLOT_HEIGHT / 2
    body.append(_text(16, middle, title, css="axis", extra=f' transform="rotate(-90 16 {middle:.1f})"'))
    return body, marks


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade around low to high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    below = [value for value in every if value <= low] or every[:1]
    above = [value for value in every if value >= high] or every[-1:]
    return [value for value in every if below[-1] <= value <= above[0]]


def _y(value: float, marks: Sequence[float], is_log: bool = False) -> float:
    low, high = marks[0], marks[-1]
    if is_log:
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low) or 1)
    else:
        share = (value - low) / (high - low)
    return TOP + PLOT_HEIGHT * (1 - share)


def line_chart(
    title: str, series: Sequence[Series], x_title: str, y_title: str, *, category_x: bool = False, log_y: bool = False
) -> str:
    """Lines with markers. With category_x the x values are spaced evenly, as suits concurrency 1, 2, 4, 8.

    Returns an empty string where no series has a point.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    every_x = sorted({x for one in drawn for x, _ in one.points})
    body, y_marks = _y_axis([y for one in drawn for _, y in one.points], y_title, log_y)
    x_marks = every_x if category_x else ticks(0.0, max(every_x) * 1.05)

    def place(x: float) -> float:
        if category_x:
            return LEFT + PLOT_WIDTH * (x_marks.index(x) + 0.5) / len(x_marks)
        return LEFT + PLOT_WIDTH * (x - x_marks[0]) / (x_marks[-1] - x_marks[0])

    for mark in x_marks:
        body.append(_text(place(mark), HEIGHT - BOTTOM + 18, number(mark)))
    body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" class="base"/>')
    body.append(_text(LEFT + PLOT_WIDTH / 2, HEIGHT - 12, x_title, css="axis"))
    for index, one in enumerate(drawn):
        spots = [(place(x), _y(y, y_marks, log_y)) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        if len(spots) > 1:
            body.append(f'<polyline points="{path}" class="line series-{index % SERIES_COLORS}"/>')
        body += [_marker(x, y, index) for x, y in spots]
        for (x, y), (next_x, next_y), label in zip(spots, [*spots[1:], *spots[-1:]], one.labels, strict=False):
            # Left of the point where the line would leave it through the label, or the label the picture.
            to_left = x > WIDTH - 120 or (x < next_x and next_y < y)
            body.append(_text(x + (-8 if to_left else 8), y - 7, label, "end" if to_left else "start", "label"))
    return _frame(title, body, [one.name for one in drawn], names=True)


def bar_chart(
    title: str,
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    y_title: str,
    unit: str = "",
) -> str:
    """Bars in groups, each about its middle; a missing value has none. Returns an empty string where there is none."""
    values = [value for _, column in series for value in column if value is not None]
    if not values:
        return ""
    body, marks = _y_axis(values, y_title)
    slot = PLOT_WIDTH / len(groups)
    bar = min(46.0, slot * 0.8 / len(series))
    for position, group in enumerate(groups):
        center = LEFT + slot * (position + 0.5)
        for line, text in enumerate(_wrap(group, slot)):
            body.append(_text(center, HEIGHT - BOTTOM + 16 + 13 * line, text))
        there = [(index, value) for index, (_, column) in enumerate(series) if (value := column[position]) is not None]
        for order, (index, value) in enumerate(there):
            x = center + bar * (order - len(there) / 2)
            y = _y(value, marks)
            height = HEIGHT - BOTTOM - y
            body.append(
                f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" height="{height:.1f}" '
                f'class="bar series-{index % SERIES_COLORS}"/>'
            )
            text = f"{value:.2g}%" if unit == "%" and value < 99.5 else number(value) + unit
            size = min(LABEL_SIZE, LABEL_SIZE * bar / (CHARACTER_WIDTH * len(text)))  # neighbors do not overlap
            body.append(_text(x + bar / 2, y - 5, text, css="label", extra=f' style="font-size:{size:.1f}px"'))
    body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" class="base"/>')
    return _frame(title, body, [name for name, _ in series], names=len(series) > 1, bars=True)


def _wrap(text: str, width: float) -> list[str]:
    """Up to three lines of a label that fit under its group of bars."""
    longest = max(6, int(width / 6.2))
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= longest:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines[:3]
