"""The machine that a command looks at: its files under a root folder, so that a test can lay out any machine."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ascend_cli.errors import UsageError
from ascend_cli.hardware import npu_smi
from ascend_facts import chips
from ascend_facts.chips import ChipSpec

DEFAULT_CHIP = "310P3"
SAME_MEMORY = 0.02  # a total this near the table's is the same part
A3_CHIP = "910_9391"  # A3 prints "Ascend910" for every chip; the bins differ by a few percent


@dataclass(frozen=True)
class DeviceNode:
    """A character device of the driver: who may open it."""

    path: str
    owner: int
    group: int
    mode: int

    def may_be_opened_by(self, user: int, groups: set[int]) -> bool:
        if user == 0:
            return True
        if user == self.owner:
            return bool(self.mode & stat.S_IRUSR and self.mode & stat.S_IWUSR)
        if self.group in groups:
            return bool(self.mode & stat.S_IRGRP and self.mode & stat.S_IWGRP)
        return bool(self.mode & stat.S_IROTH and self.mode & stat.S_IWOTH)


@dataclass(frozen=True)
class Host:
    """Files and commands of a machine, seen from `root`."""

    root: Path = field(default_factory=lambda: Path("/"))

    @property
    def is_this_machine(self) -> bool:
        return self.root == Path("/")

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """The text of a file, or None if it is missing or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def settings(self, absolute: str) -> dict[str, str]:
        """The `Name=value` lines of a file such as version.info; empty if it is missing."""
        lines = (self.read(absolute) or "").splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {name.strip(): value.strip().strip('"') for name, _, value in pairs}

    def command(self, name: str) -> Path | None:
        """Where a command is: under the root, and on the search path only if the root is this machine."""
        for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/bin", "/bin"):
            candidate = self.path(f"{folder}/{name}")
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return candidate
        return beside_python(name) if self.is_this_machine else None

    def device_nodes(self) -> list[DeviceNode]:
        """/dev/davinciN, sorted by N, and the three nodes that every process needs."""
        names = [path.name for path in self.path("/dev").glob("davinci[0-9]*") if path.name[7:].isdecimal()]
        names.sort(key=lambda name: int(name.removeprefix("davinci")))
        common = [name for name in ("davinci_manager", "devmm_svm", "hisi_hdc") if self.path(f"/dev/{name}").exists()]
        return [self._node(f"/dev/{name}") for name in [*names, *common]]

    def _node(self, absolute: str) -> DeviceNode:
        status = self.path(absolute).stat()
        return DeviceNode(absolute, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))

    def npu_smi(self) -> npu_smi.Reading:
        """The chips as npu-smi shows them. Raises NpuSmiError."""
        command = self.command("npu-smi")
        if command is None:
            raise npu_smi.NpuSmiError("npu-smi was not found", cause=npu_smi.Cause.MISSING)
        return npu_smi.read(command)


def beside_python(name: str) -> Path | None:
    """A command of this Python environment, activated or not, else one of the search path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return Path(found) if found else None


_HUNG: dict[Path, npu_smi.NpuSmiError] = {}  # one command asks several times, and each would wait in vain


def reading_here(host: Host | None = None) -> npu_smi.Reading:
    """What npu-smi shows here; one that hung is not asked again by this process. Raises NpuSmiError."""
    host = host or Host()
    command = host.command("npu-smi")
    if command in _HUNG:
        raise _HUNG[command]
    try:
        return host.npu_smi()
    except npu_smi.NpuSmiError as error:
        if command is not None and error.cause is npu_smi.Cause.HUNG:
            _HUNG[command] = error
        raise


def chips_here(host: Host | None = None) -> tuple[npu_smi.ChipReading, ...]:
    """The chips that one server can take here, or none where npu-smi cannot run."""
    try:
        return alike(reading_here(host).chips)
    except npu_smi.NpuSmiError:
        return ()


def visible_devices() -> list[str]:
    """The chips that ASCEND_RT_VISIBLE_DEVICES leaves to this process, as it numbers them; empty without it."""
    return [word.strip() for word in os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",") if word.strip()]


def alike(readings: Sequence[npu_smi.ChipReading]) -> tuple[npu_smi.ChipReading, ...]:
    """The chips of the first one's kind, among those that ASCEND_RT_VISIBLE_DEVICES leaves: ranks need equal chips."""
    visible = visible_devices()
    seen = [reading for reading in readings if not visible or str(reading.device_id) in visible]
    seen = seen or list(readings[: len(visible)])  # numbers of a container, which count its own chips
    return tuple(reading for reading in seen if reading.name == seen[0].name)


def spec_of(reading: npu_smi.ChipReading) -> ChipSpec:
    """The chip of a row of npu-smi. Raises UnknownChip.

    npu-smi names a chip in full, so a family is not enough: a bare 910B is a chip of the first generation.
    """
    if reading.name == "910":
        return chips.find(A3_CHIP)
    spec = chips.find(reading.name)
    if not reading.name.lower().startswith(spec.name.lower()):
        raise chips.UnknownChip(
            f"Unknown chip {reading.name!r}: known are {', '.join(chip.name for chip in chips.chips())}."
        )
    return spec


def spec_here(readings: Sequence[npu_smi.ChipReading]) -> ChipSpec:
    """The chip of this machine, with the memory that npu-smi shows: products of one chip differ in it.

    Where cards of several sizes hold the same chip, the smallest at each place of a card: any may take part. PyTorch
    sees the share of it that it sees on the chip of the table. Raises UnknownChip.
    """
    spec = spec_of(readings[0])
    shown: dict[int, int] = {}
    for reading in readings:
        if reading.name == readings[0].name and reading.memory_total_mib is not None:
            place = reading.chip_id % len(spec.memory_mib)
            shown[place] = min(reading.memory_total_mib, shown.get(place, reading.memory_total_mib))
    if not shown:
        return spec  # the table's memory stands
    totals = [shown[place] for place in sorted(shown)]
    table = [spec.memory_mib[place] for place in sorted(shown)]
    if all(abs(total - known) <= SAME_MEMORY * known for total, known in zip(totals, table, strict=True)):
        return spec
    share = spec.usable_memory_mib[0] / spec.memory_mib[0]
    return replace(spec, memory_mib=tuple(totals), usable_memory_mib=tuple(int(total * share) for total in totals))


def default_chip(host: Host | None = None) -> ChipSpec:
    """The chip here; where there is no NPU at all, the one that this project is first for.

    Raises UsageError where an NPU is here and cannot be told: another chip's figures would be a guess.
    """
    try:
        found = reading_here(host).chips
    except npu_smi.NpuSmiError as error:
        if error.cause is npu_smi.Cause.MISSING:
            return chips.find(DEFAULT_CHIP)
        raise UsageError(f"npu-smi does not tell the chip here ({error}): `ascend doctor`, or give --chip") from error
    if not found:
        raise UsageError("npu-smi shows no chip: `ascend doctor`, or give --chip")
    found = alike(found)
    try:
        return spec_here(found)
    except chips.UnknownChip as error:
        known = ", ".join(chip.name for chip in chips.chips())
        raise UsageError(
            f"npu-smi shows {found[0].name}, which is not known here: give --chip, one of {known}"
        ) from error


def chip_named(name: str) -> ChipSpec:
    """The chip that a command line names; the one here if it names none. Raises UsageError."""
    if not name:
        return default_chip()
    try:
        spec = chips.find(name)
    except chips.UnknownChip as error:
        raise UsageError(str(error).rstrip(".")) from error
    if not chips.is_known(name):
        raise UsageError(f"Unknown chip {name!r}: {spec.name} is its nearest here, whose figures may not be its own")
    return spec


def is_emulated() -> bool:
    """Whether processes here get emulated chips: asked for, or ascend-emulator is installed and there is no NPU."""
    try:
        from ascend_emulator.activation import emulation_is_wanted
    except ImportError:
        return False
    return bool(emulation_is_wanted(os.environ))
