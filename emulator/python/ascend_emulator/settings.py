"""What can be chosen about the emulated machine, and the variables that carry the choice to every process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ascend_emulator.chips import ChipSpec, UnknownChip, find

CLOCKS = ("functional", "skip", "timing", "both")
MAX_CHIPS = 64  # torch_npu enumerates no more (torch_npu.npu._parse_visible_devices)
DEFAULT_CHIP = "310P3"

ON = ("1", "on", "true", "yes")
OFF = ("0", "off", "false", "no")


class SettingsError(ValueError):
    """A setting that cannot be; the message names it, its value and what is accepted."""


@dataclass(frozen=True)
class Settings:
    """The emulated machine: which chip, how many, and how they behave."""

    chip: str = DEFAULT_CHIP
    count: int | None = None  # None: as many as the chip's usual server has
    memory_mib: int | None = None  # None: the chip's own
    clock: str = "functional"
    faults: Path | None = None
    protect_memory: bool = False
    time_dilation: float = 1.0  # wall seconds of a modelled second; for the modelled clocks
    lenient: bool = False  # without what the silicon does beyond the documents (docs/strict.md)
    rules: str = ""  # of those rules, the ones to switch on and, with - before them, off

    def __post_init__(self) -> None:
        try:
            find(self.chip)
        except UnknownChip as error:
            raise SettingsError(str(error)) from None
        if self.count is not None and not 1 <= self.count <= MAX_CHIPS:
            raise SettingsError(f"count is {self.count}: choose 1 to {MAX_CHIPS} chips.")
        if self.memory_mib is not None and self.memory_mib < 64:
            raise SettingsError(f"memory is {self.memory_mib} MiB: choose at least 64 MiB a chip.")
        if self.clock not in CLOCKS:
            raise SettingsError(f"clock is {self.clock!r}: choose {', '.join(CLOCKS)}.")
        if not 0.1 <= self.time_dilation <= 1000:
            raise SettingsError(f"time dilation is {self.time_dilation}: choose 0.1 to 1000.")
        if self.faults is not None and not self.faults.is_file():
            raise SettingsError(f"faults is {str(self.faults)!r}: no such file.")

    @cached_property
    def spec(self) -> ChipSpec:
        return find(self.chip)

    @property
    def chip_count(self) -> int:
        return self.count or self.spec.chips_per_server

    def to_environment(self) -> dict[str, str]:
        """The variables that make a process, and its children, see this machine."""
        optional = {
            "ASCEND_EMULATOR_MEMORY_BYTES": self.memory_mib and self.memory_mib << 20,
            "ASCEND_EMULATOR_FAULTS": self.faults and self.faults.resolve(),
            "ASCEND_EMULATOR_PROTECT_MEMORY": "1" if self.protect_memory else None,
            "ASCEND_EMULATOR_TIME_DILATION": self.time_dilation if self.time_dilation != 1 else None,
            "ASCEND_EMULATOR_LENIENT": "1" if self.lenient else None,
            "ASCEND_EMULATOR_RULES": self.rules or None,
        }
        return {
            "ASCEND_EMULATOR": "1",
            "ASCEND_EMULATOR_CHIP": self.spec.name,
            "ASCEND_EMULATOR_COUNT": str(self.chip_count),
            "ASCEND_EMULATOR_CLOCK": self.clock,
            **{name: str(value) for name, value in optional.items() if value is not None},
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The inverse of to_environment(); what is not set has its default. Raises SettingsError."""
        values = os.environ if environment is None else environment
        faults = values.get("ASCEND_EMULATOR_FAULTS")
        memory_bytes = _integer(values, "ASCEND_EMULATOR_MEMORY_BYTES")
        return cls(
            chip=values.get("ASCEND_EMULATOR_CHIP") or DEFAULT_CHIP,
            count=_integer(values, "ASCEND_EMULATOR_COUNT"),
            memory_mib=memory_bytes and memory_bytes >> 20,
            clock=values.get("ASCEND_EMULATOR_CLOCK") or "functional",
            faults=Path(faults) if faults else None,
            protect_memory=switch(values, "ASCEND_EMULATOR_PROTECT_MEMORY") or False,
            time_dilation=_number(values, "ASCEND_EMULATOR_TIME_DILATION") or 1.0,
            lenient=switch(values, "ASCEND_EMULATOR_LENIENT") or False,
            rules=values.get("ASCEND_EMULATOR_RULES", ""),
        )


def _integer(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"{name} is {text!r}: give a whole number.")
    return int(text)


def _number(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name, "")
    try:
        return float(text) if text else None
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: give a number.") from None


def switch(values: Mapping[str, str], name: str) -> bool | None:
    """A variable that is on, off, or unset (None). Raises SettingsError for anything else."""
    text = values.get(name, "").strip().lower()
    if not text:
        return None
    if text not in (*ON, *OFF):
        raise SettingsError(f"{name} is {values[name]!r}: give 1 or 0.")
    return text in ON
