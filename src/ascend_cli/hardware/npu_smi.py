"""Reading `npu-smi info`, whose table differs by product and release.

Rows are told by what stands in them, never by position: 310P prints `Chip Device` and one memory column, 910B `Chip`
and an HBM column, A3 `Chip Phy-ID` and the name "Ascend910" for every chip; from 25.6 on the name has a column of its
own and the second row of a chip begins with an empty cell. Widths change with the release, a space is missing before
some slashes (`28220/ 32768`), a chip that fell off has one row, and a line may be cut. What cannot be read becomes an
odd row of the reading, never a guess.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TIMEOUT_S = 20
FRACTION = re.compile(r"(\d+|NA|-)\s*/\s*(\d+|NA|-)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
FAILURE = re.compile(r"\bret(?:urn)?(?: code)?(?: is|:|=)?\s*(-?\d+)", re.IGNORECASE)
DRIVER_FAILURE = re.compile(r"drvRetCode\s*[=:]\s*(\d+)")
BUS_ID = re.compile(r"NA|-|[0-9A-Fa-fxX]+:\S*")
IDENTIFIERS = re.compile(r"(\d+)(?:\s+([\d-]+))?", re.ASCII)

OCCUPIED = -8020  # dcmi: the resource is occupied; another container holds the chip
BUSY_DRIVER_CODE = 87  # drvRetCode of the same on 310P
INTERNAL = -8005  # dcmi: busy on older drivers, but as often a driver updated without a reboot, or no rights


class Cause(StrEnum):
    """What a failure of npu-smi means, as far as its output tells."""

    MISSING = "missing"  # there is no npu-smi
    HUNG = "hung"  # it did not answer in time
    BUSY = "busy"  # another container holds the chips
    INTERNAL = "internal"  # -8005: several causes, which only the machine's state tells apart
    NO_TABLE = "no table"  # it ran, and printed something else
    OTHER = "other"


class NpuSmiError(Exception):
    """npu-smi is missing, failed, or printed something else; `return_code` is dcmi's where it gave one."""

    def __init__(self, message: str, return_code: int | None = None, cause: Cause = Cause.OTHER) -> None:
        super().__init__(message)
        self.return_code = return_code
        self.cause = cause

    @property
    def is_busy(self) -> bool:
        return self.cause is Cause.BUSY


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory of a chip."""

    npu_id: int
    chip_id: int
    pid: int  # of the container or of the host: npu-smi does not say which
    name: str  # empty where npu-smi shows none
    memory_mib: int | None


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
    utilization_percent: float | None
    memory_used_mib: int | None
    memory_total_mib: int | None
    hugepages_used: int | None
    hugepages_total: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that one call of `npu-smi info` tells."""

    version: str
    chips: tuple[ChipReading, ...]
    processes: tuple[Process, ...]
    odd_rows: tuple[str, ...] = ()  # rows that tell of a chip and cannot be read: what is odd about each

    def processes_on(self, chip: ChipReading) -> list[Process]:
        return [
            process for process in self.processes if (process.npu_id, process.chip_id) == (chip.npu_id, chip.chip_id)
        ]


def read(command: Path | str, environment: Mapping[str, str] | None = None) -> Reading:
    """Run `npu-smi info`. Raises NpuSmiError if it cannot run, fails, or prints no table."""
    try:
        done = subprocess.run(
            [str(command), "info"], capture_output=True, timeout=TIMEOUT_S, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise NpuSmiError(f"{command} was not found", cause=Cause.MISSING) from error
    except subprocess.TimeoutExpired as error:
        raise NpuSmiError(f"{command} info did not answer within {TIMEOUT_S} s", cause=Cause.HUNG) from error
    except OSError as error:
        raise NpuSmiError(f"{command} info did not run: {error}") from error
    printed = done.stdout.decode("utf-8", errors="replace")  # it cuts process names inside a character
    output = printed + done.stderr.decode("utf-8", errors="replace")
    if done.returncode or failures(output):
        raise failure_of(output, done.returncode)
    return parse(printed)


def failures(output: str) -> list[tuple[int, str]]:
    """Every failure code of dcmi or of the driver in an output, with its line."""
    found = []
    for line in output.splitlines():
        text = line.strip()
        if text.startswith("|"):
            continue
        if matched := DRIVER_FAILURE.search(text) or ("fail" in text.lower() and FAILURE.search(text)):
            found.append((int(matched[1]), text))
    return found


def failure_of(output: str, return_code: int) -> NpuSmiError:
    """The failure that an output tells: the most telling of its lines, not the first."""
    found = failures(output)
    causes = {OCCUPIED: Cause.BUSY, BUSY_DRIVER_CODE: Cause.BUSY, INTERNAL: Cause.INTERNAL}
    for known, cause in causes.items():
        for code, line in found:
            if code == known:
                return NpuSmiError(line, code, cause)
    if found:
        code, line = min(found)  # dcmi's codes are negative and say more than a library's "ret=4"
        return NpuSmiError(line, code)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = lines[0] if lines else f"exit code {return_code}"
    # ascend-emulator's own npu-smi, in front of the driver's, which is not there
    return NpuSmiError(first, cause=Cause.MISSING if "npu-smi was not found" in first else Cause.OTHER)


def parse(output: str) -> Reading:
    """Chips and processes of an `npu-smi info` table. Raises NpuSmiError if there is no table of chips in it."""
    table = _Table()
    for cells in _rows(output):
        table.take(cells)
    table.end_chip()
    if not table.has_head:
        raise NpuSmiError("npu-smi info printed no table of chips", cause=Cause.NO_TABLE)
    version = re.search(r"npu-smi\s+(\S+)", output)
    return Reading(
        version[1] if version else "unknown", tuple(table.chips), tuple(table.processes), tuple(table.odd_rows)
    )


def _rows(output: str) -> Iterator[list[str] | None]:
    """Cells of the lines between vertical bars; None for a line that is cut."""
    for line in output.splitlines():
        text = line.strip()
        if text.startswith("|"):
            complete = text.endswith("|") and len(text) > 1
            yield [cell.strip() for cell in text[1:-1].split("|")] if complete else None


class _Table:
    """Rows in, chips and processes out; `_upper` is a chip's first row that waits for its second."""

    def __init__(self) -> None:
        self.chips: list[ChipReading] = []
        self.processes: list[Process] = []
        self.odd_rows: list[str] = []
        self.has_head = False
        self._in_processes = False
        self._lower_head = ""
        self._upper: list[str] | None = None

    def take(self, cells: list[str] | None) -> None:
        if cells is None:
            if self.has_head and not self._in_processes:
                self.odd_rows.append("a row of the table is cut short")
        elif cells[0].startswith("NPU") and len(cells) > 1:
            self.end_chip()
            self._in_processes = any(cell.startswith("Process id") for cell in cells)
        elif any(cell == "Bus-Id" for cell in cells):
            self._lower_head, self.has_head = cells[0], True
        elif self._in_processes:
            self.processes.extend(_process(cells))
        elif self.has_head and len(cells) >= 3:
            self._take_chip_row(cells)

    def _take_chip_row(self, cells: list[str]) -> None:
        if self._upper is not None and self._is_lower(cells):
            try:
                self.chips.append(_chip(self._lower_head, self._upper, cells))
            except ValueError as error:
                self.odd_rows.append(f"{_said(self._upper)}: {error}")
            self._upper = None
        elif self._upper is None and cells[0] == "":
            self.odd_rows.append(f"a second row without its first: {' '.join(cells[1:])}")
        else:
            self.end_chip()
            self._upper = cells

    @staticmethod
    def _is_lower(cells: list[str]) -> bool:
        """A chip's second row has its bus id where the first has its health."""
        if cells[0] == "":
            return True
        return BUS_ID.fullmatch(cells[1]) is not None and IDENTIFIERS.fullmatch(cells[0]) is not None

    def end_chip(self) -> None:
        if self._upper is not None:
            self.odd_rows.append(f"{_said(self._upper)} has no second row")
            self._upper = None


def _said(upper: list[str]) -> str:
    return f"NPU {' '.join(' '.join(upper[:-1]).split())}"


def _chip(lower_head: str, upper: list[str], lower: list[str]) -> ChipReading:
    """A chip of its two rows. Raises ValueError if one says something else."""
    if len(upper) != len(lower):
        raise ValueError(f"its rows have {len(upper)} and {len(lower)} cells")
    has_name_column = len(upper) > 3
    npu_text, _, name = (upper[0], "", upper[1]) if has_name_column else upper[0].partition(" ")
    if not (npu_text.isascii() and npu_text.isdigit()):
        raise ValueError(f"{npu_text!r} is no number of an NPU")
    chip_id, device_id = 0, int(npu_text)
    if identifiers := IDENTIFIERS.fullmatch(lower[0]):
        chip_id = int(identifiers[1])
        second = identifiers[2] or ""
        if ("Device" in lower_head or "Phy-ID" in lower_head) and second.isdigit():
            device_id = int(second)
    values, usage = upper[-1].split(), lower[-1].split()
    memory = [pair for pair in FRACTION.findall(lower[-1]) if pair[1] not in ("0", "NA", "-")]
    used, total = memory[-1] if memory else ("", "")  # the HBM column, where there is one, comes last
    hugepages = FRACTION.search(upper[-1])
    name = name.strip()
    return ChipReading(
        npu_id=int(npu_text),
        chip_id=chip_id,
        device_id=device_id,
        name=name.removeprefix("Ascend").strip() or name,
        health=upper[-2],
        bus_id=lower[-2],
        temperature_c=_number(values[1]) if len(values) > 1 else None,
        power_w=_number(values[0]) if values else None,
        utilization_percent=_number(usage[0]) if usage else None,
        memory_used_mib=_whole(used),
        memory_total_mib=_whole(total),
        hugepages_used=_whole(hugepages[1]) if hugepages else None,
        hugepages_total=_whole(hugepages[2]) if hugepages else None,
    )


def _process(cells: list[str]) -> list[Process]:
    """The process of a row, or none ("No running processes found in NPU 2")."""
    identifiers = IDENTIFIERS.fullmatch(cells[0])
    pid = _whole(cells[1]) if len(cells) >= 4 else None
    if identifiers is None or pid is None:
        return []
    chip_id = _whole(identifiers[2] or "0") or 0
    return [Process(int(identifiers[1]), chip_id, pid, cells[2], _whole(cells[3]))]


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text) else None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
