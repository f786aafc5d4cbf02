"""Every command on machines whose npu-smi prints what users posted: an answer or one line, never a traceback."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from ascend_cli.hardware import host as host_module

from .conftest import Ascend

POSTED = sorted(Path(__file__).with_name("npu_smi").glob("*.txt"))
NAMES = [file.stem for file in POSTED]

Machine = Callable[[str], Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put an npu-smi in front that prints a posted file; a failure ends it with code 1."""

    def put(name: str) -> Path:
        script = tmp_path / "npu-smi"
        file = Path(__file__).with_name("npu_smi") / f"{name}.txt"
        end = "exit 1" if name.startswith("fail") else "exit 0"
        script.write_text(f"#!/bin/sh\ncat {shlex.quote(str(file))}\n{end}\n")
        script.chmod(0o755)
        monkeypatch.setattr(host_module, "beside_python", lambda name: script if name == "npu-smi" else None)
        monkeypatch.setattr("ascend_cli.serving.decide.vllm_command", lambda: "/venv/bin/vllm")
        return script

    return put


@pytest.mark.parametrize("name", NAMES)
def test_every_command_answers_on_every_machine(
    ascend: Ascend, machine: Machine, model_folder: Path, name: str
) -> None:
    machine(name)
    (model_folder / "model.safetensors").write_bytes(b"")
    for command in (
        ["doctor", "--json"],
        ["plan", "qwen3-8b", "--json"],
        ["deploy", "qwen3-8b", "--json"],
        ["serve", model_folder, "--dry-run"],
    ):
        answer = ascend(*command)
        assert answer.code in (0, 1, 2), answer.err
        if answer.code == 2:
            assert answer.error_line


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("fail")])
@pytest.mark.parametrize("command", [["plan", "qwen3-8b"], ["deploy", "qwen3-8b"], ["serve", "qwen3-8b", "--dry-run"]])
def test_an_npu_smi_that_fails_is_said_and_no_chip_guessed(
    ascend: Ascend, machine: Machine, name: str, command: list[str]
) -> None:
    machine(name)
    answer = ascend(*command)
    assert answer.code == 2
    assert ("-8020" if "8020" in name else "-8005") in answer.error_line
    assert "doctor" in answer.error_line


@pytest.mark.parametrize("name", ["21.0.2-table", "23.0.0-310B4-alarm", "23.0.2-910-gen1-hbm0"])
def test_an_unknown_chip_is_named_and_not_taken_for_another(ascend: Ascend, machine: Machine, name: str) -> None:
    machine(name)
    for command in (["plan", "qwen3-8b"], ["deploy", "qwen3-8b"], ["serve", "qwen3-8b", "--dry-run"]):
        answer = ascend(*command)
        assert answer.code == 2
        assert "not known here" in answer.error_line
    found = {one["check"]: one for one in ascend("doctor", "--json").json["findings"]}
    assert "not a chip known here" in found["pairing"]["what"]


@pytest.mark.parametrize("name", ["910B5", "Ascend310P5", "950XX", "910_9999"])
def test_a_chip_that_is_typed_and_unknown_is_not_its_relative(ascend: Ascend, name: str) -> None:
    for command in ("plan", "deploy"):
        answer = ascend(command, "qwen3-8b", "--chip", name)
        assert answer.code == 2 and "Unknown chip" in answer.error_line


@pytest.mark.parametrize("name", ["310p", "Ascend910B4-1", "910B", "Atlas 300I Duo", "310P3vir04", "950DT_9588"])
def test_a_bin_a_family_and_a_product_are_chips(ascend: Ascend, name: str) -> None:
    assert ascend("plan", "qwen3-0.6b", "--chip", name, "--json").code == 0


def test_the_memory_of_this_machine_is_planned_with(ascend: Ascend, machine: Machine) -> None:
    """Two 300I Pro of 21 GiB hold no Qwen3-14B on one chip, and a 910B4 of 64 GiB holds what one of 32 does not."""
    machine("25.5.1-Pro-x2")
    choices = ascend("plan", "qwen3-14b", "--json").json["plan"]["choices"]
    assert [choice["fits"] for choice in choices] == [False, True]
    machine("25.2.0-910B4-1")
    choices = ascend("plan", "qwen3-14b", "--json").json["plan"]["choices"]
    assert choices[0]["fits"]


def test_the_smallest_card_of_a_machine_is_planned_with(ascend: Ascend, machine: Machine) -> None:
    """A Duo of 43 GiB a chip beside a Pro of 21: whichever chips a server gets, it fits them."""
    machine("made-duo-beside-pro")
    choices = ascend("plan", "qwen3-14b", "--json").json["plan"]["choices"]
    assert [choice["fits"] for choice in choices] == [False, True]


def test_chips_of_two_kinds_are_not_counted_as_one(
    ascend: Ascend, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("made-two-kinds")
    assert "on 2 of 2 310P3 chips" in ascend("serve", "qwen3-14b", "--dry-run").err
    assert ascend("plan", "qwen3-8b", "--json").json["plan"]["chips"] == 2
    assert "2 of the 2 here" in ascend("deploy", "qwen3-8b", "--tp", "4").error_line
    found = [one for one in ascend("doctor", "--json").json["findings"] if one["check"] == "chips"]
    assert found[0]["what"].startswith("2 x 310P3, 1 x 910B3") and found[1]["status"] == "note"
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "2")
    assert "on 1 of 1 910B3 chips" in ascend("serve", "qwen3-8b", "--dry-run").err


@pytest.mark.parametrize(
    ("name", "chip", "count"), [("25.6.rc1-Ascend910-new-table", "910_9391", 1), ("25.7.rc1-950PR-alarm", "950PR", 2)]
)
def test_the_table_of_25_6_is_read(ascend: Ascend, machine: Machine, name: str, chip: str, count: int) -> None:
    machine(name)
    answer = ascend("plan", "qwen3-8b", "--json").json["plan"]
    assert (answer["chip"], answer["chips"]) == (chip, count)


def test_a_folder_of_empty_weights_is_decided_upon_and_not_served(
    ascend: Ascend, machine: Machine, model_folder: Path
) -> None:
    """Operators lay out config.json with an empty file to ask what a model would take; a start on it is refused."""
    (model_folder / "model.safetensors").write_bytes(b"")
    machine("25.2.0-910B4-1")
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 0 and "no server would start" in answer.err, answer.err
    assert any("no server would start" in line for line in ascend("serve", model_folder, "--json").json["notices"])
    assert "is no safetensors file" in ascend("serve", model_folder).error_line
    machine("25.5.1-Pro-x2")
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 2 and "does not fit" in answer.error_line


def test_an_npu_smi_that_hangs_is_asked_once(
    ascend: Ascend, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = machine("25.5.1-Pro-x2")
    calls = tmp_path / "calls"
    script.write_text(f"#!/bin/sh\necho asked >> {shlex.quote(str(calls))}\nexec sleep 60\n")
    monkeypatch.setattr("ascend_cli.hardware.npu_smi.TIMEOUT_S", 0.3)
    answer = ascend("plan", "qwen3-8b")
    assert answer.code == 2 and "did not answer" in answer.error_line
    assert calls.read_text().count("asked") == 1
    found = {one["check"]: one for one in ascend("doctor", "--json").json["findings"]}
    assert "did not answer" in found["npu-smi"]["what"]


def test_top_says_why_there_are_no_chips(ascend: Ascend, machine: Machine) -> None:
    machine("fail-8020-ret4")
    answer = ascend("top", "--once", "--url", "http://127.0.0.1:9")
    assert answer.code == 2 and "-8020" in answer.error_line


@pytest.mark.skipif(os.getuid() != 0, reason="device nodes get their owner only from root")
@pytest.mark.parametrize(
    ("state", "why", "fix"),
    [
        ({"proc/self/status": "CapEff:\t0000000000000000\n"}, "no capabilities", "--group-add"),
        ({"proc/stat": "cpu 1\nbtime 1000000000\n"}, "without a reboot", "sudo reboot"),
        ({}, "one of", "docker ps"),
    ],
)
def test_the_causes_of_8005_are_told_apart(
    ascend: Ascend, tmp_path: Path, state: dict[str, str], why: str, fix: str
) -> None:
    root = tmp_path / "host"
    script = root / "usr/local/bin/npu-smi"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\necho 'DrvMngGetConsoleLogLevel failed. (ret=4)'\n")
    with script.open("a") as more:
        more.write("echo 'dcmi module initialize failed. ret is -8005'\nexit 1\n")
    script.chmod(0o755)
    driver = root / "usr/local/Ascend/driver/version.info"
    driver.parent.mkdir(parents=True)
    driver.write_text("Version=25.5.1\n")
    for file, text in state.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    found = {one["check"]: one for one in ascend("doctor", "--root", root, "--json").json["findings"]}
    assert why in found["npu-smi"]["why"]
    assert fix in found["npu-smi"]["fix"]


def test_a_busy_chip_is_called_busy_whatever_is_printed_first(ascend: Ascend, machine: Machine) -> None:
    for name in (name for name in NAMES if "8020" in name):
        machine(name)
        found = {one["check"]: one for one in ascend("doctor", "--json").json["findings"]}
        assert "busy" in found["npu-smi"]["what"] and "docker ps" in found["npu-smi"]["fix"]


def test_a_process_without_a_name_is_no_kill(ascend: Ascend, machine: Machine) -> None:
    machine("25.5-910B3-process-no-name")
    memory = [one for one in ascend("doctor", "--json").json["findings"] if one["check"] == "memory"]
    assert "a process (pid 1333928)" in memory[0]["what"]
    assert "docker ps" in memory[0]["fix"]


def test_a_chip_that_fell_off_is_a_finding(ascend: Ascend, machine: Machine) -> None:
    machine("910B-reset-second-row-missing")
    answer = ascend("doctor", "--json")
    assert answer.code == 1
    assert any("has no second row" in one["what"] for one in answer.json["findings"])
