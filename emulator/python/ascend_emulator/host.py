"""Lay out, under a root folder, the files that driver, firmware and CANN leave on a host, to test tools against.

`create(root, "310P3", 4)` makes a sound machine; `faults` break it in the ways that users meet. The folder holds a
working `usr/local/bin/npu-smi` of that machine. Versions and file names are those of a driver 25.5 installation.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ascend_emulator.settings import Settings
from ascend_emulator.smi.machine import DRIVER_VERSION

_VERSION_FILE = Path(__file__).parent / "cann" / "runtime" / "version.info"  # the build reads it too
CANN_VERSION = dict(line.split("=", 1) for line in _VERSION_FILE.read_text().splitlines())["Version"]
DRIVER_USER_ID = 1000  # HwHiAiUser: the owner of device nodes, and the user HCCL looks up (vllm-ascend issue 9490)


class Fault(StrEnum):
    """What can be wrong with a host."""

    NO_DRIVER = "no-driver"  # nothing of the driver, no device nodes
    NO_CANN = "no-cann"
    OLD_CANN = "old-cann"  # a toolkit older than torch_npu needs
    BUSY_CHIP = "busy-chip"  # held by another container: the management interface answers -8020
    MISSING_CHIP = "missing-chip"  # the second chip of the first card has no node and does not answer
    UNHEALTHY_CHIP = "unhealthy-chip"
    WRONG_PERMISSIONS = "wrong-permissions"  # device nodes that only root can open
    NO_DRIVER_USER = "no-driver-user"  # no passwd entry for uid 1000


@dataclass(frozen=True)
class Host:
    """A laid-out machine: `environment` makes programs find its npu-smi first."""

    root: Path
    settings: Settings

    @property
    def npu_smi(self) -> Path:
        return self.root / "usr/local/bin/npu-smi"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.npu_smi.parent}:{os.environ.get('PATH', '')}"}


def create(
    root: Path | str,
    chip: str = "310P3",
    count: int | None = None,
    faults: Iterable[Fault | str] = (),
    cann_version: str = CANN_VERSION,
) -> Host:
    """A machine of `count` chips (the usual server's if None) under `root`, a new or empty folder.

    Raises SettingsError for a chip or count that cannot be, ValueError for an unknown fault, FileExistsError.
    """
    host = Host(Path(root).resolve(), Settings(chip=chip, count=count))
    if host.root.exists() and any(host.root.iterdir()):
        raise FileExistsError(f"{host.root} is not empty: give a new folder.")
    broken = {Fault(fault) for fault in faults}
    missing = [1] if Fault.MISSING_CHIP in broken else []
    _write(host.root, "etc/passwd", _passwd(broken))
    if Fault.NO_DRIVER not in broken:
        _driver(host.root)
        _device_nodes(host, missing, mode=0o600 if Fault.WRONG_PERMISSIONS in broken else 0o660)
        _management_tool(host, broken, missing)
    if Fault.NO_CANN not in broken:
        _cann(host.root, "7.0.0" if Fault.OLD_CANN in broken else cann_version)
    return host


def _write(root: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def _passwd(broken: set[Fault]) -> str:
    users = ["root:x:0:0:root:/root:/bin/bash"]
    if Fault.NO_DRIVER_USER not in broken:
        users.append(f"HwHiAiUser:x:{DRIVER_USER_ID}:{DRIVER_USER_ID}::/home/HwHiAiUser:/bin/bash")
    return "\n".join(users) + "\n"


def _driver(root: Path) -> None:
    ascend = "usr/local/Ascend"
    version = f"Version={DRIVER_VERSION}\npackage_version={DRIVER_VERSION}\n"
    _write(root, f"{ascend}/driver/version.info", f"{version}ascendhal_version=7.35.23\n")
    _write(root, f"{ascend}/firmware/version.info", f"{version}firmware_version=1.0\n")
    (root / ascend / "driver/lib64/driver").mkdir(parents=True, exist_ok=True)
    (root / "usr/local/dcmi").mkdir(parents=True, exist_ok=True)
    install_info = {
        "UserName": "HwHiAiUser",
        "UserGroup": "HwHiAiUser",
        "Driver_Install_Type": "full",
        "Driver_Install_Path_Param": "/usr/local/Ascend",
        "Driver_Install_For_All": "no",
        "Firmware_Install_Type": "full",
        "Firmware_Install_Path_Param": "/usr/local/Ascend",
    }
    _write(root, "etc/ascend_install.info", "".join(f"{name}={value}\n" for name, value in install_info.items()))


def _device_nodes(host: Host, missing: list[int], mode: int) -> None:
    """Plain files in place of character devices, which only root could make; owner and mode as the driver sets them."""
    names = [f"davinci{device}" for device in range(host.settings.chip_count) if device not in missing]
    for name in [*names, "davinci_manager", "devmm_svm", "hisi_hdc"]:
        path = _write(host.root, f"dev/{name}", "", mode)
        with suppress(PermissionError):  # changing the owner needs root
            os.chown(path, DRIVER_USER_ID, DRIVER_USER_ID)
    (host.root / "dev/shm").mkdir(exist_ok=True)


def _management_tool(host: Host, broken: set[Fault], missing: list[int]) -> None:
    state = {
        "unhealthy": {"0": "Alarm"} if Fault.UNHEALTHY_CHIP in broken else {},
        "missing": missing,
        "busy": Fault.BUSY_CHIP in broken,
    }
    _write(host.root, "var/lib/ascend-emulator/state.json", json.dumps(state))
    variables = {**host.settings.to_environment(), "ASCEND_EMULATOR_HOST": str(host.root)}
    exports = "".join(f"export {name}='{value}'\n" for name, value in variables.items())
    script = f'#!/bin/sh\n{exports}exec {sys.executable} -m ascend_emulator.smi.command "$@"\n'
    _write(host.root, "usr/local/bin/npu-smi", script, mode=0o755)


def _cann(root: Path, version: str) -> None:
    machine = platform.machine()
    toolkit = f"usr/local/Ascend/ascend-toolkit/{version}"
    info = {"package_name": "Ascend-cann-toolkit", "version": version, "arch": machine, "os": "linux"}
    text = "".join(f"{name}={value}\n" for name, value in info.items())
    _write(root, f"{toolkit}/{machine}-linux/ascend_toolkit_install.info", text)
    for component in ("runtime", "compiler", "opp", "hccl"):
        _write(root, f"{toolkit}/{component}/version.info", f"Version={version}\n")
    home = "/usr/local/Ascend/ascend-toolkit/latest"
    exports = f"export ASCEND_HOME_PATH={home}\nexport ASCEND_OPP_PATH={home}/opp\n"
    _write(root, "usr/local/Ascend/ascend-toolkit/set_env.sh", exports)
    (root / home.lstrip("/")).symlink_to(version)
