"""`ascend serve` decides what the user left open and leaves alone what the user chose; records of started servers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_cli.errors import UsageError
from ascend_cli.registry.cards import find_model
from ascend_cli.serving import decide, records
from ascend_cli.serving.decide import Machine, option, prepare
from ascend_cli.serving.flags import ServeFlags, without_secrets
from ascend_facts.chips import find

from .conftest import QWEN3_32B, Ascend

DUO = Machine(find("310P3"), 4, emulated=False, clock="real")
EMULATED = Machine(find("310P3"), 4, emulated=True, clock="functional")


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "vllm_command", lambda: "/venv/bin/vllm")
    # The folders here have a 32B model's config and no weights; tests/reliability breaks whole checkpoints.
    monkeypatch.setattr(decide, "check_checkpoint", lambda folder: None)


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
    limits = ["--middleware", decide.LIMITS]  # which another Python's vLLM may not have
    assert not set(limits) & set(elsewhere.command)
    assert here.process == [sys.executable, "-m", "ascend_cli.serving.bootstrap", *elsewhere.command[1:], *limits]


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
    chosen = flags(model_folder, "--gpu-memory-utilization", "0.5", machine=EMULATED)
    assert option(chosen, "--kv-cache-memory-bytes") is None
    notices = prepare(find_model(str(model_folder)), EMULATED, []).notices
    assert any("emulated on this CPU" in line for line in notices)


def test_context_is_cut_to_what_the_cache_holds(tmp_path: Path, model_folder: Path) -> None:
    config = (model_folder / "config.json").read_text().replace("40960", "1000000")
    (model_folder / "config.json").write_text(config)
    assert int(option(flags(model_folder, "-tp", "2"), "--max-model-len") or 0) == 59_520  # a step of 512 tokens


def test_json_shows_the_decision(ascend: Ascend, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    answer = ascend("serve", model_folder, "--json", "--", "--port", "8123")
    assert answer.code == 0
    assert answer.json["server"]["tensor_parallel_size"] == 4
    assert answer.json["command"][-2:] == ["--port", "8123"]


@pytest.mark.parametrize("command", ["serve", "deploy", "bench throughput", "bench sweep"])
@pytest.mark.parametrize("flags", [("--port", "8001"), ("--max-model-len=64",), ("-tp", "2")])
def test_a_forgotten_model_is_asked_for(ascend: Ascend, command: str, flags: tuple[str, ...]) -> None:
    answer = ascend(*command.split(), "--", *flags)
    assert answer.code == 2 and "MODEL is missing" in answer.error_line and flags[0] in answer.error_line


def test_a_folder_without_weights_is_refused(ascend: Ascend, model_folder: Path) -> None:
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 2
    assert "no weights" in answer.error_line


def test_no_chip_and_no_emulator_is_said(ascend: Ascend, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("ascend_cli.hardware.host.beside_python", lambda name: None)
    answer = ascend("serve", model_folder, "--dry-run")
    assert answer.code == 2
    assert "ascend doctor" in answer.error_line


def test_a_started_server_is_found_while_it_lives() -> None:
    server = prepare_record(os.getpid())
    records.remember(server)
    found = records.find("http://localhost:8123")
    assert found is not None and replace(found, started_s=None) == server
    assert records.find("http://127.0.0.1:8123/v1") == found
    assert records.find("http://elsewhere:8123") is None
    assert records.find("http://localhost:8124") is None
    assert records.find("http://localhost:abc") is None
    records.remember(prepare_record(2**22 + 1))  # above every process id of Linux
    assert records.find("http://localhost:8123") is None


def test_a_process_number_that_was_taken_again_is_not_the_server() -> None:
    records.remember(prepare_record(os.getpid()))
    file = records.folder() / "8123.json"
    old = json.loads(file.read_text())
    file.write_text(json.dumps(old | {"started_s": old["started_s"] - 3600}))
    assert records.find("http://localhost:8123") is None


def prepare_record(pid: int) -> records.StartedServer:
    return records.StartedServer(pid, 8123, "qwen3-8b", "310P3", 1, True, "functional")


# ---------------------------------------------------------------------------------------- who reaches the server


@pytest.mark.parametrize(
    ("given", "host", "says"),
    [
        ([], "127.0.0.1", "on this machine alone"),
        (["--host", "0.0.0.0"], None, "WARNING: listens on 0.0.0.0 without a key"),
        (["--host=0.0.0.0", "--api-key", "k"], None, "with a key on every path but"),
        (["--host", "127.0.0.9"], None, "on this machine alone"),
        (["--uds", "/run/vllm.sock"], None, "the socket /run/vllm.sock"),
    ],
)
def test_a_server_is_closed_unless_told_otherwise(
    model_folder: Path, given: list[str], host: str | None, says: str
) -> None:
    launch = prepare(find_model(str(model_folder)), DUO, given)
    added = launch.command[3 : len(launch.command) - len(given)]
    assert option(added, "--host") == host
    assert any(says in line for line in launch.notices)


def test_a_config_file_of_vllm_is_read_too(model_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("host: 0.0.0.0\ntensor-parallel-size: 2\nport: 8055\n")
    launch = prepare(find_model(str(model_folder)), DUO, ["--config", str(config)])
    assert "--host" not in launch.command and "--tensor-parallel-size" not in launch.command
    assert (launch.server.port, launch.server.tensor_parallel_size) == (8055, 2)
    assert any("WARNING" in line for line in launch.notices)


SECRET = "sk-do-not-show-this"


@pytest.mark.parametrize(
    "given",
    [["--api-key", SECRET], [f"--api-key={SECRET}"], [f"--api_key={SECRET}"], ["--hf-token", SECRET], []],
    ids=["two words", "equals", "underscore", "token", "file"],
)
def test_a_key_is_in_no_argv_record_or_log(
    ascend: Ascend, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    """Started in full, but for the last step: vLLM gets the key in its environment and nothing else has it."""
    (model_folder / "model.safetensors").write_bytes(b"")
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    monkeypatch.setattr("os.execve", lambda *arguments: started.append(arguments))
    options = []
    if not given:
        (tmp_path / "key").write_text(f"{SECRET}\n")
        options = ["--api-key-file", str(tmp_path / "key")]
    answer = ascend("serve", model_folder, *options, "--", "--port", "8199", *given)
    assert answer.code == 0, answer.err
    ((_, argv, environment),) = started
    assert SECRET in (environment.get("VLLM_API_KEY"), environment.get("HF_TOKEN"))
    record = records.folder() / "8199.json"
    assert record.stat().st_mode & 0o077 == 0
    assert SECRET not in " ".join([*argv, answer.out, answer.err, record.read_text()])
    shown = ascend("serve", model_folder, *options, "--json", "--", *given)
    assert SECRET not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--api-key-file", "/no/such/key"], {}, "cannot be read"),
        (["--api-key-file", "EMPTY"], {}, "is empty"),
        (["--api-key-file", "BINARY"], {}, "is not text"),
        (["--", "--api-key", ""], {}, "is empty"),
        (["--", "--api-key", "a", "b"], {}, "--config FILE"),
        ([], {"VLLM_API_KEY": ""}, "set and empty"),
    ],
)
def test_a_key_that_closes_nothing_starts_nothing(
    ascend: Ascend,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    says: str,
) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    (tmp_path / "EMPTY").write_text("\n")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = [str(tmp_path / word) if word in ("EMPTY", "BINARY") else word for word in arguments]
    answer = ascend("serve", model_folder, "--dry-run", *words)
    assert answer.code == 2
    assert says in answer.error_line


# ------------------------------------------------------------------------------------------ the user's other flags


@pytest.mark.parametrize(
    ("given", "ranks"),
    [
        (["--data-parallel-size", "2"], "2"),
        (["-dp=2"], "2"),
        (["--pipeline-parallel-size", "2"], "2"),
        (["--data_parallel_size=2", "-pp", "2"], None),
        (["-dp", "8", "--data-parallel-size-local", "2"], "2"),
    ],
)
def test_other_parallel_sizes_are_planned_with(tmp_path: Path, given: list[str], ranks: str | None) -> None:
    """What the user spreads over chips is not there for tensor parallelism: never more chips than are here."""
    config = QWEN3_32B | {"num_hidden_layers": 24}  # 24 GiB: fits one chip, and is served faster by several
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    assert option(flags(folder, *given)[: -len(given)], "--tensor-parallel-size") == ranks


@pytest.mark.parametrize("given", [["-dp", "4", "-tp", "2"], ["-dp", "8"], ["-tp", "3", "-pp", "2"]])
def test_more_chips_than_are_here_are_refused(model_folder: Path, given: list[str]) -> None:
    with pytest.raises(UsageError, match="4 are here"):
        prepare(find_model(str(model_folder)), DUO, given)


def test_a_share_of_memory_is_planned_with(model_folder: Path) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        prepare(find_model(str(model_folder)), DUO, ["--gpu-memory-utilization", "0.05"])


QWEN3_06B = QWEN3_32B | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "tie_word_embeddings": True,
}


def test_an_emulated_chips_small_cache_shortens_the_context(tmp_path: Path) -> None:
    """Qwen3-0.6B wants 4.4 GiB for its 40,960 tokens; vLLM refuses to start where the cache holds less."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_06B))
    chosen = flags(tmp_path, machine=EMULATED)
    tokens, bytes_per_token = int(option(chosen, "--max-model-len") or 0), 28 * 2 * 8 * 128 * 2
    assert 0 < tokens * bytes_per_token <= 1 << 30
    assert (tokens + 128) * bytes_per_token > 1 << 30, "no shorter than the cache makes it"
    assert option(flags(tmp_path, "--kv-cache-memory-bytes", "6G", machine=EMULATED), "--max-model-len") is None


@pytest.mark.parametrize(
    "flag", ["--port=0", "--port=http", "--tensor-parallel-size=two", "--gpu-memory-utilization=9", "--max-model-len=x"]
)
def test_flags_that_vllm_would_refuse_are_refused_in_a_line(ascend: Ascend, model_folder: Path, flag: str) -> None:
    with pytest.raises(UsageError, match=flag.split("=")[0]):
        prepare(find_model(str(model_folder)), DUO, [flag])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["-tp", "-pp=2", "--api-key", "--port", "--max-model-len", "--host", "--", "--uds=", "-"]),
            st.text(max_size=6),
        ),
        max_size=6,
    )
)
def test_no_flags_however_odd_are_a_traceback(words: list[str]) -> None:
    try:
        kept, _ = without_secrets(words)
        given = ServeFlags.read(kept)
        _ = (given.port, given.is_open, given.tokens("--max-model-len"), given.count("-tp"))
    except UsageError:
        return


@pytest.mark.parametrize("spoiled", ["num_attention_heads", "num_hidden_layers", "head_dim", "vocab_size"])
@pytest.mark.parametrize("value", [None, "many", [1, 2], {"a": 1}, -1, 0, 1e400])
def test_a_config_that_cannot_be_read_is_served_without_a_plan(model_folder: Path, spoiled: str, value: object) -> None:
    (model_folder / "config.json").write_text(json.dumps(QWEN3_32B | {spoiled: value}))
    try:
        launch = prepare(find_model(str(model_folder)), DUO, [])
    except UsageError as error:
        assert "does not fit" in str(error)  # a number that reads, of a model that is too large
        return
    assert launch.command[:2] == ["/venv/bin/vllm", "serve"]


def test_it_says_that_there_is_no_plan(model_folder: Path) -> None:
    (model_folder / "config.json").write_text(json.dumps({"model_type": "new", "architectures": ["NewForCausalLM"]}))
    launch = prepare(find_model(str(model_folder)), DUO, [])
    assert any("without a plan" in line for line in launch.notices)
    assert launch.server.weight_format is None


# ----------------------------------------------------------------------------------------- nothing is touched


@pytest.mark.parametrize("mode", ["--dry-run", "--json"])
def test_dry_run_and_json_touch_nothing(
    ascend: Ascend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something was fetched or built")

    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    monkeypatch.setattr("ascend_cli.registry.download.download", never)
    monkeypatch.setattr("ascend_cli.registry.smollm2.build_smollm2", never)
    for model in ("qwen3-8b", "smollm2"):
        answer = ascend("serve", model, mode)
        assert answer.code == 0, answer.err
        assert "/venv/bin/vllm" in answer.out
    unknown = ascend("serve", "someone/something", mode)
    assert unknown.code == 2 and "--download-only" in unknown.error_line
    assert not (tmp_path / "cache").exists()


def test_a_model_that_cannot_fit_is_refused_before_it_is_fetched(
    ascend: Ascend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was fetched")

    monkeypatch.setattr("ascend_cli.serving.decide.machine_here", lambda: DUO)
    monkeypatch.setattr("ascend_cli.registry.download.download", never)
    monkeypatch.setattr("ascend_cli.net.port_is_taken", lambda port: False)
    answer = ascend("serve", "qwen3-235b-a22b")
    assert answer.code == 2 and "does not fit" in answer.error_line
