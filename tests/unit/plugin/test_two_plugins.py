"""vllm-ascend installed beside this plugin: one sentence, and a way to choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = "from vllm.platforms import current_platform; print('PLATFORM', type(current_platform).__module__)"


@pytest.fixture
def beside_vllm_ascend(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution claims what vllm-ascend's metadata claims."""
    metadata = tmp_path / "vllm_ascend-0.29.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-ascend\nVersion: 0.29.0\n")
    (metadata / "entry_points.txt").write_text("[vllm.platform_plugins]\nascend = vllm_ascend:register\n")
    package = tmp_path / "vllm_ascend"
    package.mkdir()
    (package / "__init__.py").write_text("def register():\n    return 'vllm_ascend.platform.NPUPlatform'\n")
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "ASCEND_EMULATOR_CHIP": "310P3"}


def ask(environment: dict[str, str], **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in environment.items() if name != "VLLM_PLUGINS"} | changes
    return subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True)


def test_two_plugins_are_refused(beside_vllm_ascend: dict[str, str]) -> None:
    refused = ask(beside_vllm_ascend)
    assert refused.returncode != 0
    assert refused.stderr.splitlines()[-1] == (
        "vllm-ascend and ascend-plugin are both installed, and vLLM takes one platform plugin: run "
        "`pip uninstall vllm-ascend`, or choose for this run with VLLM_PLUGINS=ascend_plugin."
    )


def test_a_choice_is_obeyed(beside_vllm_ascend: dict[str, str]) -> None:
    assert "PLATFORM ascend_plugin.platform" in ask(beside_vllm_ascend, VLLM_PLUGINS="ascend_plugin").stdout
    both = ask(beside_vllm_ascend, VLLM_PLUGINS="ascend,ascend_plugin")
    assert "choose for this run" in both.stderr
