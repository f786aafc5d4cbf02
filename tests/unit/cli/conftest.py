"""What the command-line tests share: running `ascend` in this process, laid-out hosts, a quiet environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.cli import run


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error_line(self) -> str:
        """The one line of a refusal: fails if there is more, or a traceback."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ascend: ")
        return lines[0]


Ascend = Callable[..., Answer]


@pytest.fixture
def ascend(capfd: pytest.CaptureFixture[str]) -> Ascend:
    """Run a command line: `ascend("plan", "qwen3-8b")`."""

    def call(*arguments: str | Path) -> Answer:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No caches, keys or chips of the machine that runs the tests; no emulation unless a test asks for it."""
    for name in (
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_ENDPOINT",
        "MODELSCOPE_CACHE",
        "ASCEND_HOME_PATH",
        "XDG_RUNTIME_DIR",
        "VLLM_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASCEND_EMULATOR", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


QWEN3_32B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder with the config of Qwen3-32B and no weights."""
    folder = tmp_path / "qwen3-32B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_32B))
    return folder
