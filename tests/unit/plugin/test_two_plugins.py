"""vllm-ascend installed beside this plugin: one sentence, and a way to choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# vLLM is imported once; each choice is made in a fork of that process, whose output goes into files of its own.
ASK = """
import os, sys
from pathlib import Path
import vllm.platforms

folder, choices = Path(sys.argv[1]), sys.argv[2:]
for choice in choices:
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(folder / f"{choice}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        os.environ.pop("VLLM_PLUGINS", None)
        if choice != "none":
            os.environ["VLLM_PLUGINS"] = choice
        from vllm.platforms import current_platform
        print("PLATFORM", type(current_platform).__module__)
        sys.exit(0)
    print(choice, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def beside_vllm_ascend(folder: Path) -> dict[str, str]:
    """An environment in which a distribution claims what vllm-ascend's metadata claims."""
    metadata = folder / "vllm_ascend-0.29.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-ascend\nVersion: 0.29.0\n")
    (metadata / "entry_points.txt").write_text("[vllm.platform_plugins]\nascend = vllm_ascend:register\n")
    package = folder / "vllm_ascend"
    package.mkdir()
    (package / "__init__.py").write_text("def register():\n    return 'vllm_ascend.platform.NPUPlatform'\n")
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "ASCEND_EMULATOR_CHIP": "310P3"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """(exit code, output, errors) by what VLLM_PLUGINS is; "none" is unset."""
    folder = tmp_path_factory.mktemp("answers")
    choices = ["none", "ascend_plugin", "ascend,ascend_plugin"]
    environment = beside_vllm_ascend(tmp_path_factory.mktemp("packages"))
    command = [sys.executable, "-c", ASK, str(folder), *choices]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    codes = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    return {
        choice: (int(codes[choice]), (folder / f"{choice}.1").read_text(), (folder / f"{choice}.2").read_text())
        for choice in choices
    }


def test_two_plugins_are_refused(answers: dict[str, tuple[int, str, str]]) -> None:
    code, _, errors = answers["none"]
    assert code != 0
    assert errors.splitlines()[-1] == (
        "vllm-ascend and ascend-plugin are both installed, and vLLM takes one platform plugin: run "
        "`pip uninstall vllm-ascend`, or choose for this run with VLLM_PLUGINS=ascend_plugin."
    )


def test_a_choice_is_obeyed(answers: dict[str, tuple[int, str, str]]) -> None:
    code, output, _ = answers["ascend_plugin"]
    assert code == 0 and "PLATFORM ascend_plugin.platform" in output
    code, _, errors = answers["ascend,ascend_plugin"]
    assert code != 0 and "choose for this run" in errors
