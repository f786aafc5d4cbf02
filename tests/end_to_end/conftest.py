"""Models and served models that the end-to-end tests share: each is built, or started, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ascend_cli.registry.smollm2 import build_smollm2
from conformance.tiny import build_tiny_qwen3

from .server import Server, serve

EARLIER_FLAGS = ["--enforce-eager", "--dtype", "float16"]  # earlier guides ask for them; never needed, always accepted


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smollm2(tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "qwen3-0.6b")


@pytest.fixture(scope="session")
def served_smollm2(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """No flags but a name, tool calling and greedy answers by default: everything else is the plugin's choice."""
    log = tmp_path_factory.mktemp("logs") / "smollm2.log"
    arguments = [str(smollm2), "--served-model-name", "smollm2", "--override-generation-config", '{"temperature": 0}']
    with serve(*arguments, "--enable-auto-tool-choice", "--tool-call-parser", "hermes", log=log) as server:
        yield server


@pytest.fixture(scope="module")
def served_qwen3_tp4(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An operator's command for the 32B model, with a tiny Qwen3 in place of weights that are not at hand."""
    log = tmp_path_factory.mktemp("logs") / "qwen3.log"
    arguments = ["--model", str(tiny_qwen3), "--served-model-name", "qwen3-32b", "--tensor-parallel-size", "4"]
    tool_flags = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with serve(*EARLIER_FLAGS, *arguments, *tool_flags, log=log) as server:
        yield server
