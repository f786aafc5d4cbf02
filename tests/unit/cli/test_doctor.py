"""`ascend doctor` on sound and broken hosts, laid out with a working npu-smi by the emulator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.doctor.advisories import advisories, open_advisories, parse_version
from ascend_cli.doctor.variables import check_variables
from ascend_cli.doctor.versions import check_packages
from ascend_cli.hardware import Host

from .conftest import Ascend

host_layout = pytest.importorskip("ascend_emulator.host", reason="the emulator, which lays hosts out, is not installed")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="device nodes get their owner only from root")


def diagnose(ascend: Ascend, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Findings by check."""
    answer = ascend("doctor", "--root", root, "--json")
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in answer.json["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    assert answer.code == (0 if answer.json["fit_to_serve"] else 1)
    return found


def statuses(found: dict[str, list[dict[str, Any]]], check: str) -> set[str]:
    return {finding["status"] for finding in found.get(check, [])}


HOST_CHECKS = ("driver", "cann", "chips", "npu-smi", "device nodes", "permissions", "pairing", "health", "service user")


@needs_root
@pytest.mark.parametrize(("chip", "count"), [("310P3", 4), ("910B3", 8), ("910_9391", 16)])
def test_a_sound_host_has_no_error(ascend: Ascend, tmp_path: Path, chip: str, count: int) -> None:
    host_layout.create(tmp_path / "host", chip, count)
    found = diagnose(ascend, tmp_path / "host")
    errors = [finding for check in HOST_CHECKS for finding in found.get(check, []) if finding["status"] == "error"]
    assert errors == []
    assert f"{count} x " in found["chips"][0]["what"]


@needs_root
def test_pairs_are_named(ascend: Ascend, tmp_path: Path) -> None:
    host_layout.create(tmp_path / "host", "310P3", 4)
    assert "0+1  2+3" in diagnose(ascend, tmp_path / "host")["pairing"][0]["what"]


@needs_root
@pytest.mark.parametrize(
    ("fault", "check", "says", "fixes"),
    [
        ("no-driver", "driver", "no driver", "install driver"),
        ("no-cann", "cann", "no CANN toolkit", "ascend deploy"),
        ("old-cann", "cann", "CANN 7.0.0 is older", "update it"),
        ("busy-chip", "npu-smi", "busy", "docker ps"),
        ("missing-chip", "pairing", "1 of its 2 chips", "npu-smi info -t health"),
        ("unhealthy-chip", "health", "reports Alarm", "npu-smi info -t health"),
        ("wrong-permissions", "permissions", "mode 600", "chmod 660"),
        ("no-driver-user", "service user", "no user with uid 1000", "useradd"),
    ],
)
def test_a_broken_host_gets_the_right_finding(
    ascend: Ascend, tmp_path: Path, fault: str, check: str, says: str, fixes: str
) -> None:
    host_layout.create(tmp_path / "host", "310P3", 4, faults=[fault])
    found = diagnose(ascend, tmp_path / "host")
    assert statuses(found, check) & {"error", "warning"}
    finding = next(one for one in found[check] if one["status"] in ("error", "warning"))
    assert says in finding["what"]
    assert fixes in finding["fix"]
    assert finding["why"]


@needs_root
def test_missing_device_nodes_are_named(ascend: Ascend, tmp_path: Path) -> None:
    host_layout.create(tmp_path / "host", "310P3", 4)
    (tmp_path / "host/dev/davinci2").unlink()
    (tmp_path / "host/dev/hisi_hdc").unlink()
    finding = diagnose(ascend, tmp_path / "host")["device nodes"][0]
    assert finding["status"] == "error"
    assert finding["fix"].endswith("--device /dev/davinci2 --device /dev/hisi_hdc")


@needs_root
def test_the_text_says_what_why_and_what_to_do(ascend: Ascend, tmp_path: Path) -> None:
    host_layout.create(tmp_path / "host", "310P3", 2, faults=["busy-chip"])
    answer = ascend("doctor", "--root", tmp_path / "host", "--quiet")
    assert answer.code == 1
    for part in ("ERROR", "npu-smi:", "why:", "do:  docker ps"):
        assert part in answer.out


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("Version=25.0.rc1.1\n", "ok", "25.0.rc1.1"),
        ("Version=7.35.23\npackage_version=26.0.rc1\n", "ok", "26.0.rc1"),
        ("Version=23.0.5\n", "error", "older than"),
        ("Version=24.1.rc1\n", "warning", "before 25.0"),
        ("Version=24.1.rc2.2\n", "warning", "before 25.0"),
        ("Version=24.1.0.3\n", "warning", "before 25.0"),
        ("Version=25.3.rc1\n", "ok", "25.3.rc1"),
        ("Version=whatever\n", "ok", "whatever"),
    ],
)
def test_drivers_are_judged_by_their_line(ascend: Ascend, tmp_path: Path, text: str, status: str, says: str) -> None:
    file = tmp_path / "usr/local/Ascend/driver/version.info"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (finding,) = diagnose(ascend, tmp_path)["driver"]
    assert finding["status"] == status and says in finding["what"]


@pytest.mark.parametrize(
    ("homes", "version"),
    [
        ({"cann-9.0.0": "9.0.0"}, "9.0.0"),
        ({"ascend-toolkit/latest": "8.3.RC1", "cann": "9.0.0"}, "9.0.0"),
        ({"ascend-toolkit/8.5.0": "8.5.0", "ascend-toolkit/8.2.RC1": "8.2.RC1"}, "8.5.0"),
    ],
)
def test_cann_is_found_wherever_it_is_installed(
    ascend: Ascend, tmp_path: Path, homes: dict[str, str], version: str
) -> None:
    for home, text in homes.items():
        file = tmp_path / "usr/local/Ascend" / home / "version.info"
        file.parent.mkdir(parents=True)
        file.write_text(f"Version={text}\n")
    (finding,) = diagnose(ascend, tmp_path)["cann"]
    assert finding["status"] == "ok" and version in finding["what"]


ROW = {"torch": "2.13.0+cpu", "torch_npu": "2.13.0", "vllm": "0.33.0", "ascend-plugin": "0.1.0"}


def package_findings(**changes: str | None) -> dict[str, str]:
    return {finding.check: finding.status.value for finding in check_packages(ROW | changes)}


@needs_root
@pytest.mark.parametrize(("chip", "found"), [("310P3", 1), ("910B3", 0)])
def test_an_expansion_mode_that_hccl_has_not_on_the_chip_is_an_error(tmp_path: Path, chip: str, found: int) -> None:
    host_layout.create(tmp_path / "host", chip, 2)
    host = Host(tmp_path / "host")
    findings = list(check_variables(host, {"HCCL_OP_EXPANSION_MODE": "AI_CPU"}))
    assert [finding.fix for finding in findings] == ["unset HCCL_OP_EXPANSION_MODE"] * found
    assert not list(check_variables(host, {"HCCL_OP_EXPANSION_MODE": "HOST"}))


def test_the_supported_row_is_sound() -> None:
    assert set(package_findings().values()) <= {"ok", "note"}


@pytest.mark.parametrize("package", ["torch", "torch_npu", "vllm"])
def test_another_version_is_an_error(package: str) -> None:
    assert package_findings(**{package: "1.0.0"})[package] == "error"
    assert package_findings(**{package: None})[package] == "error"


def test_missing_torchvision_is_noted_with_the_release_of_this_torch() -> None:
    assert "torchvision" not in package_findings(torchvision="0.28.0+cu130")
    for torch, release in (("2.13.0+cpu", "0.28.0"), ("2.14.0", "0.29.0"), (None, "0.28.0")):
        (finding,) = (found for found in check_packages({"torch": torch}) if found.check == "torchvision")
        assert finding.status.value == "note" and finding.fix.endswith(f"torchvision=={release}")


def test_the_incumbent_beside_us_is_an_error() -> None:
    assert package_findings(**{"vllm-ascend": "0.29.0rc1"})["vllm-ascend"] == "error"


def test_advisories_by_version(ascend: Ascend) -> None:
    old = {advisory.id for advisory in open_advisories("0.18.0rc1")}
    assert {"CVE-2026-34756", "CVE-2026-47155", "CVE-2026-27893"} <= old, "a release candidate comes before the fix"
    assert "CVE-2026-27893" not in {advisory.id for advisory in open_advisories("0.18.0")}
    assert "CVE-2025-32444" not in old
    assert len(open_advisories("0.32.0")) < len(open_advisories("0.23.0")) < len(old)
    answer = ascend("doctor", "--vllm-version", "0.18.0rc1")
    assert answer.code == 0
    assert "CVE-2026-34756" in answer.out


def test_advisories_are_well_formed() -> None:
    for advisory in advisories():
        assert advisory.about and advisory.mitigation
        assert not advisory.fixed or parse_version(advisory.introduced) < parse_version(advisory.fixed)
