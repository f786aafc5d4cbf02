"""Running commands on an emulated machine: environment, exit codes, signals, counters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ascend_emulator import emulate, launcher
from ascend_emulator.launcher import _accumulate

LAUNCHER = [sys.executable, "-m", "ascend_emulator"]


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAUNCHER, *arguments], capture_output=True, text=True)


def test_the_command_and_its_children_see_the_machine() -> None:
    done = launch("--chip", "910B3", "--count", "2", "--memory", "512", "--", "sh", "-c", "sh -c env")
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("ASCEND_EMULATOR"))
    assert variables["ASCEND_EMULATOR_CHIP"] == "910B3"
    assert variables["ASCEND_EMULATOR_COUNT"] == "2"
    assert variables["ASCEND_EMULATOR_MEMORY_BYTES"] == str(512 << 20)


def test_one_machine_does_not_inherit_anothers_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_EMULATOR_MEMORY_BYTES", "1")
    monkeypatch.setenv("ASCEND_EMULATOR_LIB_DIR", "/a/build")
    with emulate(chip="310P3") as machine:
        assert "ASCEND_EMULATOR_MEMORY_BYTES" not in machine.environment
        assert machine.environment["ASCEND_EMULATOR_LIB_DIR"] == "/a/build"


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 128 + 15)])
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    assert launch("--", "sh", "-c", script).returncode == code


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--chip", "h100", "--", "true"], 2, "error: Unknown chip 'h100'"),
        (["--count", "many", "--", "true"], 2, "error: argument --count: invalid int value: 'many'."),
        (["--nonsense", "--", "true"], 2, "error: unrecognized arguments: --nonsense."),
        (["--stats", "/nowhere/stats.json", "--", "true"], 2, "error: stats is '/nowhere/stats.json'"),
        ([], 2, "error: No command"),
        (["--", "no-such-command"], 127, "error: no-such-command: command not found."),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], code: int, complaint: str) -> None:
    done = launch(*arguments)
    assert done.returncode == code
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_termination_reaches_the_command(tmp_path: Path) -> None:
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    script = f"trap 'touch {ended}; exit 3' TERM; touch {ready}; while :; do sleep 0.05; done"
    process = subprocess.Popen([*LAUNCHER, "--", "sh", "-c", script])
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 3
    assert ended.exists()


def test_a_termination_while_the_command_is_being_started_reaches_it() -> None:
    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        signal.raise_signal(signal.SIGTERM)
        return process

    assert launcher._run_in_foreground(start) == 128 + signal.SIGTERM


def test_counters_of_all_processes_are_collected(tmp_path: Path) -> None:
    """Each process leaves a file where ASCEND_EMULATOR_STATS says; the sum and the parts end in one."""
    stats = tmp_path / "stats.json"
    script = (
        "for pid in 11 12; do "
        'echo "{\\"launches\\": {\\"aclnnAdd\\": $pid}}" > $(echo $ASCEND_EMULATOR_STATS | sed s/%p/$pid/); done'
    )
    assert launch("--stats", str(stats), "--", "sh", "-c", script).returncode == 0
    collected = json.loads(stats.read_text())
    assert collected["total"] == {"launches": {"aclnnAdd": 23}}
    assert [process["pid"] for process in collected["processes"]] == [11, 12]
    assert (collected["schema"], collected["chip"], collected["emulated"]) == (1, "310P3", True)


def test_sums_add_and_peaks_do_not() -> None:
    total: dict[str, object] = {}
    _accumulate(total, {"launches": 2, "memory": {"peak_bytes": 10, "allocations": 1}, "chip": "310P3"})
    _accumulate(total, {"launches": 3, "memory": {"peak_bytes": 7, "allocations": 1}, "chip": "310P3"})
    assert total == {"launches": 5, "memory": {"peak_bytes": 10, "allocations": 2}, "chip": "310P3"}


def test_the_machines_folder_goes_with_it() -> None:
    with emulate() as machine:
        folder = machine.folder
        machine.run(["true"], check=True)
        assert folder.exists()
    assert not folder.exists()
    assert os.environ.get("ASCEND_EMULATOR_STATS") is None
