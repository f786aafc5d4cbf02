"""Hosts laid out for testing tools: sound ones, and each way of breaking them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ascend_emulator import host
from ascend_emulator.host import Fault
from ascend_emulator.settings import SettingsError


def npu_smi(machine: host.Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["npu-smi", *arguments], env=machine.environment, capture_output=True, text=True)


def test_a_sound_host_has_what_a_driver_leaves(tmp_path: Path) -> None:
    machine = host.create(tmp_path, "310P3", 4)
    nodes = {path.name for path in (tmp_path / "dev").iterdir() if path.is_file()}
    assert nodes == {"davinci0", "davinci1", "davinci2", "davinci3", "davinci_manager", "devmm_svm", "hisi_hdc"}
    assert (tmp_path / "dev/davinci0").stat().st_mode & 0o777 == 0o660
    assert "Version=" in (tmp_path / "usr/local/Ascend/driver/version.info").read_text()
    assert "Driver_Install_Path_Param=" in (tmp_path / "etc/ascend_install.info").read_text()
    toolkit = tmp_path / "usr/local/Ascend/ascend-toolkit/latest"
    assert f"version={host.CANN_VERSION}" in next(toolkit.glob("*-linux/ascend_toolkit_install.info")).read_text()
    assert npu_smi(machine, "info").stdout.count("310P3") == 4


def test_its_npu_smi_is_of_its_own_machine(tmp_path: Path) -> None:
    machine = host.create(tmp_path, "910_9391", 2)
    assert npu_smi(machine, "info", "-t", "board", "-i", "0", "-c", "1").stdout.count("9391") == 1


def test_no_driver(tmp_path: Path) -> None:
    machine = host.create(tmp_path, faults=[Fault.NO_DRIVER])
    assert not machine.npu_smi.exists()
    assert not list(tmp_path.glob("dev/davinci*"))


def test_one_chip_of_a_pair_is_missing(tmp_path: Path) -> None:
    machine = host.create(tmp_path, "310P3", 4, faults=["missing-chip"])
    assert not (tmp_path / "dev/davinci1").exists()
    assert npu_smi(machine, "info").stdout.count("310P3") == 3


def test_a_busy_chip_answers_as_the_driver_does(tmp_path: Path) -> None:
    done = npu_smi(host.create(tmp_path, faults=[Fault.BUSY_CHIP]), "info")
    assert (done.returncode, done.stdout) == (
        1,
        "dcmi model initialized failed, because the device is used. ret is -8020\n",
    )


def test_an_unhealthy_chip(tmp_path: Path) -> None:
    machine = host.create(tmp_path, faults=[Fault.UNHEALTHY_CHIP])
    assert "Health                         : Alarm" in npu_smi(machine, "info", "-t", "health", "-i", "1").stdout


def test_wrong_permissions(tmp_path: Path) -> None:
    host.create(tmp_path, faults=[Fault.WRONG_PERMISSIONS])
    assert (tmp_path / "dev/davinci0").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("fault", "version"), [(Fault.OLD_CANN, "7.0.0"), (Fault.NO_CANN, None)])
def test_cann(tmp_path: Path, fault: Fault, version: str | None) -> None:
    host.create(tmp_path, faults=[fault])
    found = list(tmp_path.glob("usr/local/Ascend/ascend-toolkit/latest/*-linux/ascend_toolkit_install.info"))
    assert (version is None and not found) or f"version={version}" in found[0].read_text()


def test_the_driver_user_can_be_missing(tmp_path: Path) -> None:
    host.create(tmp_path / "sound")
    host.create(tmp_path / "broken", faults=[Fault.NO_DRIVER_USER])
    assert "HwHiAiUser:x:1000" in (tmp_path / "sound/etc/passwd").read_text()
    assert "HwHiAiUser" not in (tmp_path / "broken/etc/passwd").read_text()


def test_what_cannot_be_laid_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Unknown chip"):
        host.create(tmp_path, "h100")
    with pytest.raises(ValueError, match="on-fire"):
        host.create(tmp_path, faults=["on-fire"])
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        host.create(tmp_path)
