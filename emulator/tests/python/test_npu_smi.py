"""npu-smi: byte-exact lines of the real tool's layouts, and the identifiers that programs join on."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ascend_emulator.settings import Settings, SettingsError
from ascend_emulator.smi.command import answer
from ascend_emulator.smi.registry import state_folder


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASCEND_EMULATOR_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("ASCEND_EMULATOR_HOST", raising=False)


def smi(command: str, chip: str = "310P3", count: int | None = None) -> str:
    return answer(command.split(), Settings(chip=chip, count=count))


# Lines of real outputs: nvtop issue 421 (310P3), vllm-ascend issues 8809 (910B) and 2035 (A3).
SEEN_310P = """\
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 1       310P3                 | OK              | NA           45                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1529 / 44278                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 1       310P3                 | OK              | NA           43                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1412 / 43693                            |
+===============================+=================+======================================================+
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
+===============================+=================+======================================================+
| No running processes found in NPU 1                                                                    |
+===============================+=================+======================================================+
"""
SEEN_910B = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 91.0        36                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3400 / 65536         |
+===========================+===============+====================================================+
"""
SEEN_A3 = """\
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 166.5       38                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3151 / 65536         |
+------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -           37                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          2886 / 65536         |
+===========================+===============+====================================================+
"""


@pytest.mark.parametrize(
    ("chip", "count", "seen"), [("310P3", 2, SEEN_310P), ("910B3", 8, SEEN_910B), ("910_9391", 16, SEEN_A3)]
)
def test_the_table_has_the_real_layout(chip: str, count: int, seen: str) -> None:
    output = smi("info", chip, count)
    assert seen in output
    assert len({len(line) for line in output.splitlines()}) == 1


def test_two_chips_share_a_card_and_its_number() -> None:
    rows = re.findall(r"^\| (\d+)\s+310P3.*\n\| (\d+)\s+(\d+)", smi("info", count=4), re.MULTILINE)
    assert rows == [("1", "0", "0"), ("1", "1", "1"), ("2", "0", "2"), ("2", "1", "3")]


def test_the_map_joins_cards_to_devices() -> None:
    rows = [line.split() for line in smi("info -m", count=4).splitlines()[1:]]
    assert [row[:3] for row in rows if row[-1] != "Mcu"] == [
        ["1", "0", "0"],
        ["1", "1", "1"],
        ["2", "0", "2"],
        ["2", "1", "3"],
    ]
    assert [row[:3] for row in rows if row[-1] == "Mcu"] == [["1", "2", "-"], ["2", "2", "-"]]


def test_the_list_counts_cards() -> None:
    output = smi("info -l", count=4)
    assert re.search(r"Total Count\s+: 2\n", output)
    assert re.findall(r"NPU ID\s+: (\d)", output) == ["1", "2"]
    assert re.findall(r"Chip Count\s+: (\d)", output) == ["2", "2"]


def test_the_topology_tells_pairs_from_strangers() -> None:
    lines = smi("info -t topo", count=4).splitlines()
    assert lines[0].split()[:4] == ["NPU0", "NPU1", "NPU2", "NPU3"]
    assert [line.split()[:5] for line in lines[1:5]] == [
        ["NPU0", "X", "PIX", "PHB", "PHB"],
        ["NPU1", "PIX", "X", "PHB", "PHB"],
        ["NPU2", "PHB", "PHB", "X", "PIX"],
        ["NPU3", "PHB", "PHB", "PIX", "X"],
    ]
    assert re.fullmatch(r"0-\d+", lines[1].split()[-1])
    assert smi("info -t topo", "910B3").partition("Legend")[0].count("HCCS ") == 8 * 7


@pytest.mark.parametrize(
    ("chip", "card", "expected"),
    [
        ("310P3", 1, {"Chip Type": "Ascend", "Chip Name": "310P3"}),
        ("910B4", 0, {"Chip Type": "Ascend", "Chip Name": "910B4"}),
        ("910_9391", 0, {"Chip Name": "Ascend910", "NPU Name": "9391"}),
        ("950DT", 0, {"Chip Name": "Ascend950DT", "NPU Name": "9591"}),
    ],
)
def test_the_board_tells_the_soc_version(chip: str, card: int, expected: dict[str, str]) -> None:
    """The fields that vllm-ascend's set-up composes the SoC version from."""
    output = smi(f"info -t board -i {card} -c 0", chip)
    values = dict(re.split(r"\s+: ", line.strip()) for line in output.splitlines())
    identity = {name: values[name] for name in ("Chip Type", "Chip Name", "NPU Name") if name in values}
    assert identity == expected


@pytest.mark.parametrize("subject", ["common", "usages", "memory", "health", "temp", "power", "proc-mem"])
def test_a_subject_covers_the_cards_chips(subject: str) -> None:
    assert re.findall(r"Chip ID\s+: (\d)", smi(f"info -t {subject} -i 2")) == ["0", "1"]
    assert re.findall(r"Chip ID\s+: (\d)", smi(f"info -t {subject} -i 2 -c 1")) == ["1"]


def test_a_running_process_shows_with_its_memory() -> None:
    (state_folder() / f"{os.getpid()}.1").write_bytes(struct.pack("<Q", 1000 << 20))
    output = smi("info", count=2)
    assert "2412 / 43693" in output
    assert re.search(rf"^\| 1       1\s+\| {os.getpid()}\s+\| \S+\s+\| 1000 ", output, re.MULTILINE)
    assert "No running processes" not in output
    assert f"Process id:{os.getpid()} " in smi("info -t proc-mem -i 1")


def test_a_dead_process_is_forgotten() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    left = state_folder() / f"{process.pid}.0"
    left.write_bytes(struct.pack("<Q", 1000 << 20))
    assert "1529 / 44278" in smi("info", count=2)
    assert not left.exists()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("info -t common", "needs a card"),
        ("info -t common -i 7", "there is no card 7; the cards are 1, 2"),
        ("info -t common -i 1 -c 5", "there is no chip 5 on card 1"),
    ],
)
def test_what_is_not_there_is_said(command: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        smi(command)


def test_the_command_says_that_it_is_emulated() -> None:
    command = [sys.executable, "-m", "ascend_emulator.smi.command", "-v"]
    done = subprocess.run(command, env={**os.environ, "ASCEND_EMULATOR": "1"}, capture_output=True, text=True)
    assert re.fullmatch(r"npu-smi version: [\d.]+\n", done.stdout)
    assert "emulated" in done.stderr


def test_it_steps_aside_for_the_drivers_own(tmp_path: Path) -> None:
    real = tmp_path / "npu-smi"
    real.write_text('#!/bin/sh\necho "real $*"\n')
    real.chmod(0o755)
    command = [sys.executable, "-m", "ascend_emulator.smi.command", "info", "-l"]
    environment = {**os.environ, "ASCEND_EMULATOR": "0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "real info -l\n"
