"""The emulated machine as its management tool sees it: cards, chips, identifiers, health, memory and processes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ascend_emulator.chips import ChipSpec
from ascend_emulator.settings import Settings
from ascend_emulator.smi import registry
from ascend_emulator.smi.registry import Process

DRIVER_VERSION = "25.5.0"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Idle:
    """What a layout's chips show when nothing runs, by position on the card (values seen in public issue threads)."""

    memory_mib: tuple[int, ...]
    temperature_c: tuple[int, ...]
    power: tuple[str, ...]
    first_npu_id: int


IDLE = {
    "device": Idle((1529, 1412), (45, 43), ("NA", "NA"), first_npu_id=1),
    "chip": Idle((3400,), (36,), ("91.0",), first_npu_id=0),
    "phy_id": Idle((3151, 2886), (38, 37), ("166.5", "-"), first_npu_id=0),
}
BUS_910B = ("C1", "C2", "81", "82", "01", "02", "41", "42")


@dataclass(frozen=True)
class Chip:
    """One chip: `npu_id` names its card, `chip_id` its place on it, `device` is what programs number it."""

    spec: ChipSpec
    npu_id: int
    chip_id: int
    device: int
    health: str
    temperature_c: int
    power: str
    idle_memory_mib: int
    processes: tuple[Process, ...] = ()

    @property
    def memory_total_mib(self) -> int:
        sizes: tuple[int, ...] = self.spec.memory_mib
        return sizes[self.chip_id % len(sizes)]

    @property
    def memory_used_mib(self) -> int:
        in_use = self.idle_memory_mib + sum(process.memory_mib for process in self.processes)
        return min(in_use, self.memory_total_mib)

    @property
    def short_name(self) -> str:
        """As the table prints it: every A3 die calls itself Ascend910."""
        return "Ascend910" if self.spec.family == "910_93" else self.spec.name

    @property
    def bus_id(self) -> str:
        card = self.npu_id
        if self.spec.family == "310p":
            bus = f"{card:02X}"  # both chips of a Duo card show the address of the card's switch
        elif self.spec.family == "910_93":
            bus = f"{(0x9D - 4 * card + 2 * self.chip_id) % 256:02X}"
        else:
            bus = BUS_910B[card % len(BUS_910B)]
        return f"0000:{bus}:00.0"


@dataclass(frozen=True)
class HostState:
    """What is wrong with a machine laid out by ascend_emulator.host.create()."""

    unhealthy: dict[int, str] = field(default_factory=dict)  # device: health
    missing: tuple[int, ...] = ()
    busy: bool = False


class DriverError(RuntimeError):
    """The driver does not answer; the message is what the tool prints."""


def state_of_host() -> HostState:
    """The state that a laid-out host's npu-smi was made with (ASCEND_EMULATOR_HOST), or a machine without faults."""
    root = os.environ.get("ASCEND_EMULATOR_HOST")
    if not root:
        return HostState()
    state = json.loads((Path(root) / "var/lib/ascend-emulator/state.json").read_text(encoding="utf-8"))
    return HostState(
        unhealthy={int(device): health for device, health in state["unhealthy"].items()},
        missing=tuple(state["missing"]),
        busy=state["busy"],
    )


def chips(settings: Settings, host: HostState | None = None) -> list[Chip]:
    """Every chip that answers, with what runs on it now. Raises DriverError where the chips are held elsewhere."""
    state = host or state_of_host()
    if state.busy:
        raise DriverError("dcmi model initialized failed, because the device is used. ret is -8020")
    spec = settings.spec
    idle = IDLE[spec.npu_smi_layout]
    running = registry.processes()
    present = [device for device in range(settings.chip_count) if device not in state.missing]
    return [
        Chip(
            spec=spec,
            npu_id=idle.first_npu_id + device // spec.chips_per_card,
            chip_id=device % spec.chips_per_card,
            device=device,
            health=state.unhealthy.get(device, "OK"),
            temperature_c=_at(idle.temperature_c, device),
            power=_at(idle.power, device),
            idle_memory_mib=_at(idle.memory_mib, device),
            processes=tuple(running.get(device, ())),
        )
        for device in present
    ]


def _at(values: tuple[Value, ...], device: int) -> Value:
    return values[device % len(values)]
