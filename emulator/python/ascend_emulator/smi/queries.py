"""The other verbs of `npu-smi info`: lists, maps, and one subject of one card as "name : value" lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ascend_emulator.chips import Link
from ascend_emulator.smi.machine import DRIVER_VERSION, Chip

Fields = list[tuple[str, object]]


def fields(*groups: Fields) -> str:
    """Groups of "name : value" lines with an empty line between, the tool's indentation kept."""
    texts = ["".join(f"\t{name:<30} : {value}\n" for name, value in group) for group in groups if group]
    return "\n".join(texts)


def card_list(chips: Sequence[Chip]) -> str:
    """`info -l`."""
    cards = sorted({chip.npu_id for chip in chips})
    counts = {card: sum(chip.npu_id == card for chip in chips) for card in cards}
    entries: list[Fields] = [[("NPU ID", card), ("Chip Count", counts[card])] for card in cards]
    return fields([("Total Count", len(cards))], *entries)


def card_map(chips: Sequence[Chip]) -> str:
    """`info -m`: which chip of which card is which device; each card's controller (Mcu) has a row and no device."""
    layout = chips[0].spec.npu_smi_layout
    columns = ["NPU ID", "Chip ID", "Chip Logic ID", "Chip Name"]
    if layout == "phy_id":
        columns.insert(3, "Chip Phy-ID")
    lines = [columns]
    for index, chip in enumerate(chips):
        name = chip.short_name if layout == "phy_id" else f"Ascend {chip.short_name}"
        identifiers = [chip.npu_id, chip.chip_id, chip.device, *([chip.device] if layout == "phy_id" else [])]
        lines.append([*map(str, identifiers), name])
        if index + 1 == len(chips) or chips[index + 1].npu_id != chip.npu_id:
            dashes = ["-"] * (len(columns) - 3)
            lines.append([str(chip.npu_id), str(chip.chip_id + 1), *dashes, "Mcu"])
    return "".join("\t" + "".join(f"{cell:<31}" for cell in line).rstrip() + "\n" for line in lines)


def topology(chips: Sequence[Chip]) -> str:
    """`info -t topo`: the link between each pair of chips, and the host CPUs near each."""
    names = [f"NPU{chip.device}" for chip in chips]
    lines = ["\t" + "   " + "".join(f"{name:<11}" for name in names) + "CPU Affinity"]
    for chip, name in zip(chips, names, strict=True):
        links = [link_between(chip, other) for other in chips]
        lines.append("".join(f"{cell:<11}" for cell in [name, *links]) + f"0-{(os.cpu_count() or 1) - 1}")
    legend = [
        "Legend:",
        "  X       = Self",
        "  SYS     = PCIe and the link between NUMA nodes",
        "  PHB     = PCIe and the CPU's host bridge",
        "  PIX     = one PCIe switch",
        "  HCCS    = Huawei Cache Coherence System",
        "  HCCS_SW = HCCS through a switch",
        "  SIO     = between the dies of one package",
    ]
    return "\n".join([*lines, "", *legend]) + "\n"


def link_between(chip: Chip, other: Chip) -> str:
    if chip.device == other.device:
        return "X"
    link: Link = chip.spec.card_link if chip.npu_id == other.npu_id else chip.spec.node_link
    topology: str = link.topology
    return topology


def _usage_rate(chip: Chip) -> int:
    return round(100 * chip.memory_used_mib / chip.memory_total_mib)


def _memory_names(chip: Chip) -> tuple[str, str]:
    """The memory that models live in, and the other one: DDR alone on 310P, HBM beside an empty DDR elsewhere."""
    return ("DDR", "") if chip.spec.npu_smi_layout == "device" else ("HBM", "DDR")


def common(chip: Chip) -> Fields:
    kind, other = _memory_names(chip)
    rates: Fields = [("Memory Usage Rate(%)", 0 if other else _usage_rate(chip))]
    if other:
        rates.append((f"{kind} Usage Rate(%)", _usage_rate(chip)))
    return [
        ("Chip ID", chip.chip_id),
        *rates,
        ("Aicore Usage Rate(%)", 0),
        ("Aicore Freq(MHZ)", chip.spec.cube_mhz),
        ("Aicore curFreq(MHZ)", chip.spec.cube_mhz),
        ("Aicore Count", chip.spec.cube_cores),
        ("Temperature(C)", chip.temperature_c),
        ("NPU Real-time Power(W)", chip.power),
    ]


def usages(chip: Chip) -> Fields:
    kind, other = _memory_names(chip)
    empty: Fields = [
        (f"{other} Capacity(MB)", 0),
        (f"{other} Usage Rate(%)", 0),
        (f"{other} Hugepages Total(page)", 0),
        (f"{other} Hugepages Usage Rate(%)", 0),
    ]
    return [
        *(empty if other else []),
        (f"{kind} Capacity(MB)", chip.memory_total_mib),
        (f"{kind} Usage Rate(%)", _usage_rate(chip)),
        ("Aicore Usage Rate(%)", 0),
        ("Aivector Usage Rate(%)", 0),
        ("Aicpu Usage Rate(%)", 0),
        ("Ctrlcpu Usage Rate(%)", 0),
        *([(f"{other} Bandwidth Usage Rate(%)", 0)] if other else []),
        (f"{kind} Bandwidth Usage Rate(%)", 0),
        ("Chip ID", chip.chip_id),
    ]


def memory(chip: Chip) -> Fields:
    kind, other = _memory_names(chip)
    return [
        *([(f"{other} Capacity(MB)", 0)] if other else []),
        (f"{kind} Capacity(MB)", chip.memory_total_mib),
        ("Chip ID", chip.chip_id),
    ]


def health(chip: Chip) -> Fields:
    return [("Health", chip.health), ("Chip ID", chip.chip_id)]


def temperature(chip: Chip) -> Fields:
    return [("NPU Temperature (C)", chip.temperature_c), ("Chip ID", chip.chip_id)]


def power(chip: Chip) -> Fields:
    return [("NPU Real-time Power(W)", chip.power), ("Chip ID", chip.chip_id)]


def processes(chips: Sequence[Chip]) -> str:
    """`info -t proc-mem -i N`: the only subject that is not "name : value" lines."""
    lines = [f"\t{'NPU ID':<30} : {chips[0].npu_id}"]
    for chip in chips:
        lines.append(f"\t{'Chip ID':<30} : {chip.chip_id}")
        lines += [
            f"\tProcess id:{process.pid} Process name:{process.name} Process memory(MB):{process.memory_mib}"
            for process in chip.processes
        ] or ["\tNo process in device."]
    return "\n".join(lines) + "\n"


def board_of_chip(chip: Chip) -> Fields:
    """`info -t board -i N -c C`: how programs learn the exact SoC version."""
    soc = chip.spec.soc_version.removeprefix("Ascend")
    if chip.spec.npu_smi_layout == "phy_id":
        identity: Fields = [("Chip Name", "Ascend910"), ("NPU Name", soc.split("_")[-1])]
    elif chip.spec.family == "950":
        identity = [("Chip Name", f"Ascend{soc.split('_')[0]}"), ("NPU Name", soc.split("_")[-1])]
    else:
        identity = [("Chip Type", "Ascend"), ("Chip Name", soc)]
    return [
        ("NPU ID", chip.npu_id),
        ("Chip ID", chip.chip_id),
        *identity,
        ("Chip Version", "V1"),
        ("PCIe Bus Info", chip.bus_id),
    ]


def board_of_card(chips: Sequence[Chip]) -> Fields:
    return [
        ("NPU ID", chips[0].npu_id),
        ("Product Name", chips[0].spec.products[0]),
        ("Manufacturer", "Huawei"),
        ("Serial Number", f"EMULATED{chips[0].npu_id:04d}"),
        ("Software Version", DRIVER_VERSION),
        ("Firmware Version", DRIVER_VERSION),
        ("Compatibility", "OK"),
        ("PCIe Bus Info", chips[0].bus_id),
        ("Chip Count", len(chips)),
    ]


SUBJECTS: dict[str, Callable[[Chip], Fields]] = {
    "common": common,
    "usages": usages,
    "memory": memory,
    "health": health,
    "temp": temperature,
    "power": power,
}


def subject_of_card(subject: str, chips: Sequence[Chip]) -> str:
    """`info -t SUBJECT -i N`: the card's line, then a group for each of its chips."""
    head: Fields = [("NPU ID", chips[0].npu_id), ("Chip Count", len(chips))]
    return fields(head, *(SUBJECTS[subject](chip) for chip in chips))
