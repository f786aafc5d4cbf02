"""Tables that fit a terminal: cut into several by columns where one is too wide, never a figure cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

WIDEST = 10_000  # more than any table: its natural width


def fitting(out: Console, table: Table) -> list[RenderableType]:
    """The table, or parts of it that fit: each with the first column and as many others as there is room for.

    A part of two columns that is still too wide lets its last column run over several lines if that holds words, and
    stands as `head: value` lines if even that does not help.
    """
    if _width(out, table) <= out.width:
        return [table]
    parts: list[list[int]] = []
    for index in range(1, len(table.columns)):
        if parts and _width(out, _part(table, [*parts[-1], index])) <= out.width:
            parts[-1].append(index)
        else:
            parts.append([0, index])
    shown: list[RenderableType] = []
    for part in parts or [[0]]:
        small = _part(table, part)
        small.title = table.title if not shown else None
        is_prose = table.columns[part[-1]].justify == "left" and len(part) == 2
        if _width(out, small) <= out.width or (is_prose and out.width >= _first_width(out, table) + 24):
            shown.append(small)
        else:
            shown.extend(_lines(table, part, with_title=not shown))
    return shown


def _width(out: Console, table: Table) -> int:
    from rich.measure import Measurement

    return Measurement.get(out, out.options.update(width=WIDEST, max_width=WIDEST), table).maximum


def _first_width(out: Console, table: Table) -> int:
    return _width(out, _part(table, [0]))


def _part(table: Table, columns: list[int]) -> Table:
    """A table of some of the columns. Figures (right-justified) do not wrap."""
    from rich.table import Table as RichTable

    found = RichTable(
        title_justify=table.title_justify, box=table.box, show_header=table.show_header, pad_edge=table.pad_edge
    )
    for index in columns:
        column = table.columns[index]
        is_figure = column.justify == "right" or index == 0
        found.add_column(column.header, justify=column.justify, no_wrap=is_figure, overflow="fold")
    cells = [list(table.columns[index].cells) for index in columns]
    for row in zip(*cells, strict=True):
        found.add_row(*row)
    return found


def _lines(table: Table, columns: list[int], with_title: bool) -> list[RenderableType]:
    from rich.text import Text

    def text(cell: object) -> str:
        return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)

    lines = [str(table.title)] if with_title and table.title else []
    first, *others = columns
    for row, name in enumerate(table.columns[first].cells):
        for index in others:
            value = text(list(table.columns[index].cells)[row])
            if value:
                lines.append(f"{text(name)}, {text(table.columns[index].header)}: {value}".lstrip(", "))
    return [Text("\n".join(lines), overflow="fold")]
