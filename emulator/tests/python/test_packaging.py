"""What the libraries need and give away: only libopapi knows torch, and no library replaces names of others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ascend_emulator import activation

LIBRARIES = sorted(activation.PACKAGE.glob("lib/**/*.so"))
OURS = ("acl", "Acl", "Atb", "Hccl", "hccl", "hcom", "rt", "Msprof", "ascend_emulator_")
FOREIGN = ("at::", "c10::", "torch::", "std::", "caffe2::")

pytestmark = pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils is not installed")


def output(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.stem)
def test_only_the_operators_are_linked_with_torch(library: Path) -> None:
    needed = output("readelf", "-d", library)
    assert ("libtorch_cpu.so" in needed) == (library.name == activation.OPERATORS)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.stem)
def test_no_library_gives_away_names_of_others(library: Path) -> None:
    lines = output("nm", "-D", "-C", "--defined-only", library).splitlines()
    names = [line.split(maxsplit=2)[2] for line in lines]
    assert [name for name in names if name.startswith(FOREIGN)] == []
    assert [name for name in names if "(" not in name and "::" not in name and not name.startswith(OURS)] == []


def test_another_torch_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    (tmp_path / "torch-2.13").mkdir()
    (tmp_path / "torch-2.13" / activation.OPERATORS).touch()
    monkeypatch.setattr(torch, "__version__", "2.99.1+cpu")
    with pytest.raises(activation.EmulatorError, match=r"operators for torch 2\.13, and torch 2\.99 is installed"):
        activation.operators_of(tmp_path)
