"""`ascend serve` decides what the user left open and leaves alone what the user chose; records of started servers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ascend_cli.errors import UsageError
from ascend_cli.registry.cards import find_model
from ascend_cli.serving import decide, records
from ascend_cli.serving.decide import Machine, option, prepare
from ascend_facts.chips import find

from .conftest import Ascend

DUO = Machine(find("310P3"), 4, emulated=False, clock="real")
EMULATED = Machine(find("310P3"), 4, emulated=True, clock="functional")


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "vllm_command", lambda: "/venv/bin/vllm")


def flags(folder: Path, *given: str, machine: Machine = DUO) -> list[str]:
    command = prepare(find_model(str(folder)), machine, given).command
    assert command[:3] == ["/venv/bin/vllm", "serve", str(folder)]
    return command[3:]


def test_vllm_of_this_python_is_run_by_it(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script would import vLLM with garbage collection on."""
    elsewhere = prepare(find_model(str(model_folder)), DUO, [])
    assert elsewhere.process == elsewhere.command
    monkeypatch.setattr(decide, "vllm_command", lambda: str(Path(sys.executable).with_name("vllm")))
    here = prepare(find_model(str(model_folder)), DUO, [])
    assert here.process == [sys.executable, "-m", "ascend_cli.serving.bootstrap", *elsewhere.command[1:]]


def test_what_is_left_open_is_decided(model_folder: Path) -> None:
    chosen = flags(model_folder)
    assert option(chosen, "--tensor-parallel-size") == "4"
    assert option(chosen, "--served-model-name") == "qwen3-32B"
    assert option(chosen, "--tool-call-parser") == "hermes"
    assert option(chosen, "--reasoning-parser") == "qwen3"
    assert not {"--enforce-eager", "--dtype"} & set(chosen), "the plugin needs no flags for a chip"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--tensor-parallel-size", "2"], "--tensor-parallel-size"),
        (["-tp", "2"], "--tensor-parallel-size"),
        (["--tensor-parallel-size=2"], "--tensor-parallel-size"),
        (["--served-model-name", "mine"], "--served-model-name"),
        (["--tool-call-parser", "qwen3_xml"], "--tool-call-parser"),
        (["--max-model-len", "512"], "--max-model-len"),
    ],
)
def test_what_the_user_chose_stays(model_folder: Path, given: list[str], name: str) -> None:
    chosen = flags(model_folder, *given)
    assert chosen[-len(given) :] == given
    assert option(chosen[: -len(given)], name) is None


def test_a_model_that_cannot_fit_is_refused_with_the_arithmetic(model_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"61\.0 GiB of fp16 weights.*--tensor-parallel-size 2"):
        prepare(find_model(str(model_folder)), DUO, ["-tp", "1"])


def test_the_cache_of_emulated_chips_is_held_small(model_folder: Path) -> None:
    assert option(flags(model_folder, machine=EMULATED), "--kv-cache-memory-bytes") == str(1 << 30)
    chosen = flags(model_folder, "--gpu-memory-utilization", "0.3", machine=EMULATED)
    assert option(chosen, "--kv-cache-memory-bytes") is None
    notices = prepare(find_model(str(model_folder)), EMULATED, []).notices
    assert any("emulated on this CPU" in line for line in notices)


def test_context_is_cut_to_what_the_cache_holds(tmp_path: Path, model_folder: Path) -> None:
    config = (model_folder / "config.json").read_text().replace("40960", "1000000")
    (model_folder / "config.json").write_text(config)
    assert int(option(flags(model_folder, "-tp", "2"), "--max-model-len") or 0) == 57_600


def test_json_shows_the_decision(ascend: Ascend, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    answer = ascend("serve", model_folder, "--json", "--", "--port", "8123")
    assert answer.code == 0
    assert answer.json["server"]["tensor_parallel_size"] == 4
    assert answer.json["command"][-2:] == ["--port", "8123"]


def test_a_folder_without_weights_is_refused(ascend: Ascend, model_folder: Path) -> None:
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 2
    assert "no weights" in answer.error_line


def test_no_chip_and_no_emulator_is_said(ascend: Ascend, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("ascend_cli.hardware.chips_here", lambda host=None: ())
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 2
    assert "ascend doctor" in answer.error_line


def test_a_started_server_is_found_while_it_lives() -> None:
    server = prepare_record(os.getpid())
    records.remember(server)
    assert records.find("http://localhost:8123") == server
    assert records.find("http://127.0.0.1:8123/v1") == server
    assert records.find("http://elsewhere:8123") is None
    assert records.find("http://localhost:8124") is None
    records.remember(prepare_record(2**22 + 1))  # above every process id of Linux
    assert records.find("http://localhost:8123") is None


def prepare_record(pid: int) -> records.StartedServer:
    return records.StartedServer(pid, 8123, "qwen3-8b", "310P3", 1, True, "functional")
