"""Reading `npu-smi info`, whose table differs by product and release.

Columns are found by their titles, never by position: 310P prints `Chip Device` and one memory column, 910B `Chip` and
an HBM column, A3 `Chip Phy-ID`, names every chip "Ascend910" and gives power to the first die of a package alone;
widths change with the release, and a space is missing before some slashes (`28220/ 32768`).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 20
FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
INITIALISE_FAILED = re.compile(
    r"(?:dcmi|DrvMngGetConsoleLogLevel|initialize).*?ret(?: is|:|=)?\s*(-?\d+)", re.IGNORECASE
)
BUSY_RETURN_CODE = -8005  # dcmi: the device is open in another container
BUSY_DRIVER_CODE = 87  # drvRetCode of the same on 310P


class NpuSmiError(Exception):
    """npu-smi is missing, failed, or printed something else; `return_code` is dcmi's where it gave one."""

    def __init__(self, message: str, return_code: int | None = None) -> None:
        super().__init__(message)
        self.return_code = return_code

    @property
    def is_busy(self) -> bool:
        return self.return_code in (BUSY_RETURN_CODE, BUSY_DRIVER_CODE)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory of a chip."""

    npu_id: int
    chip_id: int
    pid: int
    name: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class ChipReading:
    """One chip as `npu-smi info` shows it. `npu_id` counts cards or modules, `chip_id` the chips on one.

    `device_id` is the N of /dev/davinciN: printed on 310P and A3, the NPU id elsewhere. A value that the tool prints
    as NA or - is None.
    """

    npu_id: int
    chip_id: int
    device_id: int
    name: str
    health: str
    bus_id: str
    temperature_c: float | None
    power_w: float | None
    utilisation_percent: float | None
    memory_used_mib: int
    memory_total_mib: int
    hugepages_used: int
    hugepages_total: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that one call of `npu-smi info` tells."""

    version: str
    chips: tuple[ChipReading, ...]
    processes: tuple[Process, ...]

    def processes_on(self, chip: ChipReading) -> list[Process]:
        return [
            process for process in self.processes if (process.npu_id, process.chip_id) == (chip.npu_id, chip.chip_id)
        ]


def read(command: Path | str, environment: Mapping[str, str] | None = None) -> Reading:
    """Run `npu-smi info`. Raises NpuSmiError if it cannot run, fails, or prints no table."""
    try:
        done = subprocess.run(
            [str(command), "info"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise NpuSmiError(f"{command} was not found") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NpuSmiError(f"{command} info did not run: {error}") from error
    output = done.stdout + done.stderr
    failure = failure_code(output)
    if done.returncode or failure is not None:
        first = next((line.strip() for line in output.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise NpuSmiError(first, failure)
    return parse(done.stdout)


def failure_code(output: str) -> int | None:
    """The code in a failure message of dcmi or of the driver, None if the output is not one."""
    for pattern in (INITIALISE_FAILED, re.compile(r"drvRetCode\s*[=:]\s*(\d+)")):
        if found := pattern.search(output):
            return int(found[1])
    return None


def parse(output: str) -> Reading:
    """Chips and processes of an `npu-smi info` table. Raises NpuSmiError if there is no table of chips in it."""
    version = re.search(r"npu-smi\s+(\S+)", output)
    chips: list[ChipReading] = []
    processes: list[Process] = []
    columns: list[str] = []
    upper: list[str] | None = None
    in_processes = False
    for cells in _rows(output):
        if cells[0].startswith("NPU") and len(cells) > 1:
            in_processes = cells[1].startswith("Process id")
        elif cells[0].startswith("Chip") and len(cells) > 1:
            columns, upper = cells, None
        elif in_processes:
            processes.extend(_process(cells))
        elif columns and len(cells) >= 3:
            if upper is None:
                upper = cells
            else:
                chips.append(_chip(columns, upper, cells))
                upper = None
    if not columns:
        raise NpuSmiError("npu-smi info printed no table of chips")
    return Reading(version[1] if version else "unknown", tuple(chips), tuple(processes))


def _rows(output: str) -> list[list[str]]:
    """Cells of the lines between vertical bars; rules and titles without a second cell are left out."""
    rows = []
    for line in output.splitlines():
        text = line.strip()
        if text.startswith("|") and text.endswith("|"):
            cells = [cell.strip() for cell in text.strip("|").split("|")]
            if cells[0]:
                rows.append(cells)
    return rows


def _chip(columns: list[str], upper: list[str], lower: list[str]) -> ChipReading:
    npu_id, _, name = upper[0].partition(" ")
    identifiers = [int(number) for number in lower[0].split()]
    chip_id = identifiers[0]
    has_device_column = "Device" in columns[0] or "Phy-ID" in columns[0]
    device_id = identifiers[1] if has_device_column and len(identifiers) > 1 else int(npu_id)
    power, temperature = upper[2].split()[:2]
    hugepages = FRACTION.search(upper[2]) or re.match(r"(\d*)(\d*)", "")
    memory = [(int(used), int(total)) for used, total in FRACTION.findall(lower[2])]
    used, total = memory[-1] if memory else (0, 0)  # the HBM column, where there is one, comes last
    return ChipReading(
        npu_id=int(npu_id),
        chip_id=chip_id,
        device_id=device_id,
        name=name.strip().removeprefix("Ascend") or name.strip(),
        health=upper[1],
        bus_id=lower[1],
        temperature_c=_number(temperature),
        power_w=_number(power),
        utilisation_percent=_number(lower[2].split()[0]),
        memory_used_mib=used,
        memory_total_mib=total,
        hugepages_used=int(hugepages[1] or 0) if hugepages else 0,
        hugepages_total=int(hugepages[2] or 0) if hugepages else 0,
    )


def _process(cells: list[str]) -> list[Process]:
    """The process of a row, or none ("No running processes found in NPU 2")."""
    identifiers = cells[0].split()
    if len(cells) < 4 or not cells[1].isdigit() or not identifiers[0].isdigit():
        return []
    chip_id = int(identifiers[1]) if len(identifiers) > 1 else 0
    memory = NUMBER.match(cells[3])
    return [Process(int(identifiers[0]), chip_id, int(cells[1]), cells[2], int(memory[0]) if memory else 0)]


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text) else None
