"""The table of `npu-smi info`: three layouts, by chip family.

Column widths and headings are those of outputs in public issue threads (310P3: nvtop 421; 910B: vllm-ascend 8809;
A3: vllm-ascend 2035), so that parsers written for the real tool work unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ascend_emulator.smi.machine import DRIVER_VERSION, Chip


@dataclass(frozen=True)
class Layout:
    widths: tuple[int, int, int]  # of the columns, between the bars
    title_width: int
    id_width: int
    second_id: str  # heading beside "Chip": nothing, Device or Phy-ID
    first_figure_width: int
    pages_width: int
    process_name_width: int
    has_hbm: bool
    dashed_between_chips: str  # "columns" or "whole": the line between the chips of one card


LAYOUTS = {
    "device": Layout((31, 17, 54), 48, 7, "Device", 12, 5, 26, has_hbm=False, dashed_between_chips="columns"),
    "chip": Layout((27, 15, 52), 32, 5, "", 11, 4, 26, has_hbm=True, dashed_between_chips="whole"),
    "phy_id": Layout((27, 15, 52), 32, 5, "Phy-ID", 11, 4, 26, has_hbm=True, dashed_between_chips="whole"),
}


def render(chips: Sequence[Chip]) -> str:
    """The whole output for the chips of one machine, which are all of one kind."""
    layout = LAYOUTS[chips[0].spec.npu_smi_layout]
    return "\n".join([*_device_table(chips, layout), *_process_table(chips, layout)]) + "\n"


def _line(layout: Layout, fill: str, widths: Sequence[int] | None = None) -> str:
    return "+" + "+".join(fill * width for width in widths or layout.widths) + "+"


def _row(widths: Sequence[int], *cells: str) -> str:
    return "|" + "|".join(f" {cell}".ljust(width) for cell, width in zip(cells, widths, strict=True)) + "|"


def _device_table(chips: Sequence[Chip], layout: Layout) -> list[str]:
    whole = [sum(layout.widths) + 2]
    title = f"{'npu-smi ' + DRIVER_VERSION:<{layout.title_width}} Version: {DRIVER_VERSION}"
    second = layout.id_width, layout.first_figure_width
    memory = f"{'Memory-Usage(MB)':<17} HBM-Usage(MB)" if layout.has_hbm else "Memory-Usage(MB)"
    lines = [
        _line(layout, "-", whole),
        _row(whole, title),
        _line(layout, "-"),
        _row(
            layout.widths,
            f"{'NPU':<{second[0]}} Name",
            "Health",
            f"{'Power(W)':<{second[1]}} {'Temp(C)':<17} Hugepages-Usage(page)",
        ),
        _row(
            layout.widths,
            f"{'Chip':<{second[0]}} {layout.second_id}",
            "Bus-Id",
            f"{'AICore(%)':<{second[1]}} {memory}",
        ),
        _line(layout, "="),
    ]
    for _, card in groupby(chips, key=lambda chip: chip.npu_id):
        for position, chip in enumerate(card):
            if position:
                lines.append(_line(layout, "-", whole if layout.dashed_between_chips == "whole" else None))
            lines += _chip_rows(chip, layout)
        lines.append(_line(layout, "="))
    return lines


def _chip_rows(chip: Chip, layout: Layout) -> list[str]:
    pages = f"{0:<{layout.pages_width}} / 0"
    usage = f"{chip.memory_used_mib:<5}/ {chip.memory_total_mib}"
    if layout.has_hbm:
        usage = f"{'0    / 0':<17} {usage}"
    second_id = str(chip.device) if layout.second_id else ""
    return [
        _row(
            layout.widths,
            f"{chip.npu_id:<{layout.id_width}} {chip.short_name}",
            chip.health,
            f"{chip.power:<{layout.first_figure_width}} {chip.temperature_c:<17} {pages}",
        ),
        _row(
            layout.widths,
            f"{chip.chip_id:<{layout.id_width}} {second_id}",
            chip.bus_id,
            f"{0:<{layout.first_figure_width}} {usage}",
        ),
    ]


def _process_table(chips: Sequence[Chip], layout: Layout) -> list[str]:
    name = layout.process_name_width
    widths = [*layout.widths[:2], name, layout.widths[2] - name - 1]
    whole = [sum(layout.widths) + 2]
    lines = [
        _line(layout, "-"),
        _row(widths, f"{'NPU':<7} Chip", "Process id", "Process name", "Process memory(MB)"),
        _line(layout, "="),
    ]
    for npu_id, card in groupby(chips, key=lambda chip: chip.npu_id):
        rows = [
            _row(widths, f"{npu_id:<7} {chip.chip_id}", str(process.pid), process.name, str(process.memory_mib))
            for chip in card
            for process in chip.processes
        ]
        lines += rows or [_row(whole, f"No running processes found in NPU {npu_id}")]
        lines.append(_line(layout, "="))
    return lines
