"""What ends a start in one sentence: another vLLM, CANN that cannot be loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_facts.versions import row
from ascend_plugin import preconditions

ASK = "from vllm.platforms import current_platform; print('PLATFORM', type(current_platform).__module__)"


def ask(folder: Path, script: str = ASK, **changes: str) -> subprocess.CompletedProcess[str]:
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "ASCEND_EMULATOR_CHIP": "310P3", **changes}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def other_vllm(tmp_path: Path) -> Path:
    """A folder that makes the installed vLLM say that it is another release."""
    metadata = tmp_path / "vllm-0.34.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.34.0\n")
    return tmp_path


def test_another_vllm_is_refused_in_one_sentence(other_vllm: Path) -> None:
    refused = ask(other_vllm)
    assert refused.returncode != 0
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"Install vllm=={row().vllm} (`python scripts/setup.py`)")
    assert "vLLM 0.34.0 is installed" in last


def test_those_who_upgrade_may_try(other_vllm: Path) -> None:
    assert "PLATFORM ascend_plugin.platform" in ask(other_vllm, ASCEND_PLUGIN_ANY_VLLM="1").stdout


LIBRARY_MISSING = (
    "import ctypes\n"
    "load = ctypes.CDLL\n"
    "def without_cann(name, *arguments, **options):\n"
    "    if name == 'libascendcl.so':\n"
    "        raise OSError('libascendcl.so: cannot open shared object file: No such file or directory')\n"
    "    return load(name, *arguments, **options)\n"
    "ctypes.CDLL = without_cann\n"
    "from ascend_plugin import register\n"
    "import vllm.logger\n"
    "print('ANSWERS', register(), register())\n"
)


def test_cann_that_cannot_be_loaded_is_said_once_with_the_command(tmp_path: Path) -> None:
    done = ask(tmp_path, LIBRARY_MISSING, TORCH_DEVICE_BACKEND_AUTOLOAD="0", VLLM_LOGGING_STREAM="ext://sys.stderr")
    assert "ANSWERS None None" in done.stdout, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert said.count("CANN's libraries cannot be loaded") == 1
    assert "libascendcl.so: cannot open shared object file" in said
    assert "`source /usr/local/Ascend/ascend-toolkit/set_env.sh`" in said


def test_the_script_that_is_there_is_named(tmp_path: Path) -> None:
    there = tmp_path / "cann" / "set_env.sh"
    missing = tmp_path / "toolkit" / "set_env.sh"
    assert preconditions.set_env_script([str(missing), str(there)]) == str(missing)
    there.parent.mkdir()
    there.touch()
    assert preconditions.set_env_script([str(missing), str(there)]) == str(there)
