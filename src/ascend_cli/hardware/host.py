"""The machine that a command looks at: its files under a root folder, so that a test can lay out any machine."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ascend_cli.errors import UsageError
from ascend_cli.hardware import npu_smi
from ascend_facts import chips
from ascend_facts.chips import ChipSpec

DEFAULT_CHIP = "310P3"
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
        names = [path.name for path in self.path("/dev").glob("davinci[0-9]*")]
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
            raise npu_smi.NpuSmiError("npu-smi was not found")
        return npu_smi.read(command)


def beside_python(name: str) -> Path | None:
    """A command of this Python environment, activated or not, else one of the search path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return Path(found) if found else None


def chips_here(host: Host | None = None) -> tuple[npu_smi.ChipReading, ...]:
    """The chips that npu-smi shows, or none where it cannot run."""
    try:
        return (host or Host()).npu_smi().chips
    except npu_smi.NpuSmiError:
        return ()


def spec_of(reading: npu_smi.ChipReading) -> ChipSpec:
    """The chip of a row of npu-smi. Raises UnknownChip."""
    return chips.find(A3_CHIP if reading.name in ("910", "Ascend910") else reading.name)


def default_chip(host: Host | None = None) -> ChipSpec:
    """The chip here; where there is none, the one that this project is first for."""
    found = chips_here(host)
    return spec_of(found[0]) if found else chips.find(DEFAULT_CHIP)


def chip_named(name: str) -> ChipSpec:
    """The chip that a command line names; the one here if it names none. Raises UsageError."""
    if not name:
        return default_chip()
    try:
        return chips.find(name)
    except chips.UnknownChip as error:
        raise UsageError(str(error).rstrip(".")) from error


def is_emulated() -> bool:
    """Whether processes here get emulated chips: asked for, or ascend-emulator is installed and there is no NPU."""
    try:
        from ascend_emulator.activation import emulation_is_wanted
    except ImportError:
        return False
    return bool(emulation_is_wanted(os.environ))
