"""One row of versions: everything that has to repeat it agrees with src/ascend_facts/versions.toml."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ascend_facts.versions import row

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())["project"]


def test_constraints_pin_the_tested_row() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tested = row().tested_torch
    assert pins == {
        "torch": tested, "torch_npu": tested, "vllm": row().vllm, "transformers": row().transformers
    }  # fmt: skip


def test_the_emulator_builds_for_every_torch_of_the_row() -> None:
    series = tuple(version.rpartition(".")[0] for version in row().torch)
    assert series == load("emulator/cmake/locate_packages.py").SERIES


@pytest.mark.parametrize("path", ["pyproject.toml", "emulator/pyproject.toml"])
def test_every_python_of_the_row_may_install(path: str) -> None:
    oldest, end = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project(path)["requires-python"]).groups()
    assert all(int(oldest) <= int(python.partition(".")[2]) < int(end) for python in row().pythons)


@pytest.mark.parametrize("image", ["Dockerfile-310p", "Dockerfile-a3-openeuler"])
def test_images_install_the_tested_row(image: str) -> None:
    text = (ROOT / "tests/unit/cli/golden" / image).read_text()
    # From the locks, which test_locks_have_the_row holds to the row; torch is in none.
    locks = {"row.lock", f"torch_npu-{row().tested_torch}.lock", "vllm.lock"}
    assert locks <= set(re.findall(r"-r requirements/(\S+)", text))
    assert set(re.findall(r"torch==([\d.]+)", text)) == {row().tested_torch}


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_readmes_name_the_row(page: str) -> None:
    text = (ROOT / page).read_text()
    for version in (row().vllm, *row().torch, *row().pythons):
        assert version in text, f"{page} does not name {version}"


def test_builds_of_the_release_are_the_release() -> None:
    assert row().has_vllm(f"{row().vllm}+empty")
    assert row().has_vllm(row().vllm)
    for other in ("0.32.0", f"{row().vllm}rc1", f"{row().vllm}.dev3", "0.34.0"):
        assert not row().has_vllm(other)


LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def locked() -> dict[str, set[str]]:
    """Versions by package, over all locks."""
    found: dict[str, set[str]] = {}
    for file in LOCKS:
        for name, version in re.findall(r"^([\w.-]+)==([\w.+!]+)", file.read_text(), re.MULTILINE):
            found.setdefault(name.replace("_", "-").lower(), set()).add(version)
    return found


def test_locks_have_the_row_and_no_torch() -> None:
    assert locked()["vllm"] == {row().vllm}
    assert locked()["transformers"] == {row().transformers}
    assert locked()["torch-npu"] == set(row().torch)
    assert locked()["torchvision"] == set(row().torchvision)
    assert "torch" not in locked()
    assert not [name for name in locked() if name.startswith(("nvidia-", "cuda-"))]


def test_locks_have_what_the_project_asks_for() -> None:
    asked = project("pyproject.toml")
    wanted = [
        *asked["dependencies"],
        *asked["optional-dependencies"]["models"],
        *asked["optional-dependencies"]["test"],
    ]
    names = {re.match(r"[\w.-]+", line).group().replace("_", "-").lower() for line in wanted}
    assert names <= locked().keys(), "run scripts/lock.py"


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: file.name)
def test_every_file_of_a_lock_is_known_by_its_hash_and_by_no_address(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    parts = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert parts and all("--hash=sha256:" in part for part in parts)
