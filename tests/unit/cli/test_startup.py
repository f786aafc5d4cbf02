"""`ascend` answers at once because it imports nothing heavy, and every error is one line with its exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Ascend

HEAVY = ["torch", "torch_npu", "vllm", "transformers", "rich", "httpx", "jinja2", "yaml", "huggingface_hub", "numpy"]


def test_start_up_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from ascend_cli import cli\n"
        "cli.run(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_plugin_package_imports_nothing_heavy() -> None:
    probe = f"import sys, ascend_plugin; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


COMMANDS = [
    ["doctor"],
    ["plan"],
    ["deploy"],
    ["serve"],
    ["top"],
    ["models"],
    ["emulate"],
    ["bench", "serve"],
    ["bench", "throughput"],
    ["bench", "sweep"],
    ["bench", "compare"],
    ["bench", "report"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(ascend: Ascend, command: list[str]) -> None:
    answer = ascend(*command, "--help")
    assert answer.code == 0
    assert "--json" in answer.out


def test_no_arguments_is_help(ascend: Ascend) -> None:
    answer = ascend()
    assert (answer.code, "doctor" in answer.out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["plan", "qwen3-8b", "--nonsense"], "No such option: --nonsense"),
        (["plan", "qwen3-8b", "--chips", "many"], "--chips"),
        (["plan", "qwen3-8b", "--chip", "H100"], "choose one of 310P3"),
        (["plan"], "name a model"),
        (["plan", "no-such-model"], "ascend plan --list"),
        (["plan", "/no/such/folder"], "does not exist"),
        (["plan", "qwen3-8b", "--weights", "w4a16"], "choose one of fp16, w8a8"),
        (["plan", "qwen3-8b", "--tp", "3"], "cannot divide"),
        (["plan", "qwen3-8b", "--max-model-len", "99999999"], "made for"),
        (["deploy", "qwen3-8b", "--target", "helm"], "--target"),
        (["deploy", "qwen3-8b", "--tag", "latest"], "vX.Y.Z"),
        (["deploy", "qwen3-8b", "--tag", "v0.18.0"], "use v0.18.0-310p"),
        (["deploy", "qwen3-8b", "--mirror", "moon"], "daocloud"),
        (["deploy", "qwen3-8b", "--devices", "0,0"], "twice"),
        (["deploy", "qwen3-8b", "--devices", "a-b"], "write 0,1 or 0-3"),
        (["deploy", "qwen3-8b", "--devices", "0", "--tp", "2"], "needs 2 chips"),
        (["deploy", "qwen3-8b", "--api-key-file", "/no/such/key"], "cannot be read"),
        (["deploy", "qwen3-8b", "--model-dir", "relative"], "absolute path"),
        (["deploy", "qwen3-8b", "--model-dir", "/a/b", "--mount", "/c"], "does not contain"),
        (["deploy", "qwen3-8b", "--target", "k8s", "--open"], "--target docker only"),
        (["deploy", "qwen3-8b", "--output", "/no/such/folder/file"], "cannot be written"),
        (["deploy"], "name a model"),
        (["serve", "no-such-model"], "ascend plan --list"),
        (["serve", "smollm2", "--", "--port", "http"], "is not a port"),
        (["bench", "serve", "--url", "http://localhost:9"], "no server answers"),
        (["bench", "serve", "--slo", "speed:1"], "metric:milliseconds"),
        (["bench", "serve", "--max-concurrency", "many"], "write 1,2,4"),
        (["bench", "sweep", "smollm2", "--set", "tensor-parallel-size"], "--set"),
        (["bench", "compare", "atlas-300i-duo", "/no/such/file.json"], "cannot be read"),
        (["bench", "report", "/no/such/file.json"], "cannot be read"),
        (["top", "--url", "http://localhost:9"], "no server answers"),
        (["doctor", "--vllm-version", "newest"], "is not a version"),
        (["doctor", "--root", "/no/such/folder"], "is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(ascend: Ascend, arguments: list[str], says: str) -> None:
    answer = ascend(*arguments)
    assert answer.code == 2, answer
    assert says in answer.error_line
    assert answer.out == ""


def test_a_folder_without_config_is_refused(ascend: Ascend, tmp_path) -> None:
    answer = ascend("plan", tmp_path)
    assert answer.code == 2
    assert "has no config.json" in answer.error_line


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "qwen3"}'])
def test_a_damaged_config_is_refused(ascend: Ascend, tmp_path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    answer = ascend("plan", tmp_path)
    assert answer.code == 2
    assert "config.json" in answer.error_line


def test_a_taken_port_is_refused(ascend: Ascend) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        serve = ascend("serve", "smollm2", "--", "--port", port)
        deploy = ascend("deploy", "qwen3-8b", "--port", port, "--check-port")
    assert (serve.code, deploy.code) == (2, 2)
    assert f"port {port} is taken" in serve.error_line
    assert f"port {port} is taken" in deploy.error_line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_generated(shell: str) -> None:
    environment = {"_ASCEND_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"}
    program = "import sys; sys.argv = ['ascend']; from ascend_cli.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "_ASCEND_COMPLETE" in done.stdout
