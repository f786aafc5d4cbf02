"""A bundle for a host without a network: made by real pip from small locks, carried, tampered with, installed.

`docker` is a stand-in that saves and loads empty images, since no daemon runs where tests do.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ascend_facts.versions import row

from .conftest import Ascend

DOCKER = """#!/bin/sh
echo "docker $*" >> "$DOCKER_CALLS"
case "$1" in
  image) case "$3" in *missing*) exit 1;; esac;;
  pull) case "$2" in *missing*) echo "no such image" >&2; exit 1;; esac;;
  save) echo "image of $4" > "$3";;
esac
"""
# vLLM's build tags its wheel with the machine, though the build without kernels holds no machine code.
PLATFORM_SETUP = """from setuptools import Distribution, setup
class Tagged(Distribution):
    def has_ext_modules(self):
        return True
setup(distclass=Tagged)
"""
PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "{version}"
[tool.setuptools]
packages = []
"""


def wheel(folder: Path, name: str, version: str) -> Path:
    """The least wheel that pip takes."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        content.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        content.writestr(f"{info}/RECORD", "")
    return file


def sdist(folder: Path, name: str, version: str) -> Path:
    file = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in {
            "pyproject.toml": PROJECT.format(name=name, version=version),
            "setup.py": PLATFORM_SETUP,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file


def lock(file: Path, *packages: Path) -> None:
    lines = []
    for package in packages:
        name, version = package.name.removesuffix(".tar.gz").split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}\n")
    file.write_text("".join(lines))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose locks name three tiny packages, an index that has them, and docker's stand-in."""
    index, root = tmp_path / "index", tmp_path / "repository"
    for folder in (index, root / "requirements", tmp_path / "bin"):
        folder.mkdir(parents=True)
    torch = row().tested_torch
    wheel(index, "torch", f"{torch}+cpu")
    lock(root / "requirements/row.lock", wheel(index, "small", "1.0"))
    lock(root / f"requirements/torch_npu-{torch}.lock", wheel(index, "torch_npu", torch))
    lock(root / "requirements/vllm.lock", sdist(index, "vllm", row().vllm))
    (root / "pyproject.toml").write_text(PROJECT.format(name="ascend-plugin", version="9.9"))
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CALLS", str(tmp_path / "docker-calls"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return root


@pytest.fixture
def model(model_folder: Path) -> Path:
    (model_folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (model_folder / "a name with spaces.txt").write_text("x")
    return model_folder


def install(bundle: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(bundle / "install.sh"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_a_bundle_is_complete_and_installs(ascend: Ascend, repository: Path, model: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    arguments = [str(model), "--chip", "910B3", "--target", "compose", "--monitoring"]
    answer = ascend("deploy", *arguments, "--offline-bundle", bundle, "--build", repository, "--json")
    assert answer.code == 0, answer.err
    facts = answer.json
    assert facts["schema"] == "ascend.bundle/1" and facts["missing"] == []
    names = {file.name.split("-")[0] for file in (bundle / "wheels").iterdir()}
    assert names == {"small", "torch", "torch_npu", "vllm", "ascend_plugin"}
    assert all(file.suffix == ".whl" for file in (bundle / "wheels").iterdir()), "nothing is built on the host"
    assert len(list((bundle / "images").glob("*.tar"))) == len(facts["images"]) == 4
    listed = (bundle / "SHA256SUMS").read_text()
    assert all(name in listed for name in ("compose.yaml", "install.sh", "bundle.json", "weights.sha256", "images/"))

    moved = tmp_path / "carried"
    shutil.move(bundle, moved)
    done = install(moved)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docker-calls").read_text().count("docker load --input images/") == 4


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_wheels_are_those_of_the_other_machine(
    ascend: Ascend, repository: Path, model: Path, tmp_path: Path, architecture: str
) -> None:
    """Kunpeng hosts are aarch64: what pip takes there, of the images' own glibc, and nothing of this machine."""
    small = next((tmp_path / "index").glob("small-*.whl"))
    small = small.rename(small.with_name(f"small-1.0-py3-none-manylinux_2_31_{architecture}.whl"))
    bundle = tmp_path / "bundle"
    answer = ascend(
        "deploy", model, "--chip", "910B3", "--target", "systemd", "--offline-bundle", bundle, "--build", repository,
        "--arch", architecture, "--json",
    )  # fmt: skip
    assert answer.code == 0 and answer.json["missing"] == [], answer.err
    names = {file.name for file in (bundle / "wheels").iterdir()}
    assert small.name in names and f"vllm-{row().vllm}-py3-none-any.whl" in names
    assert all(name.endswith(("-none-any.whl", f"_{architecture}.whl")) for name in names), names


def test_what_was_changed_on_the_way_is_not_installed(
    ascend: Ascend, repository: Path, model: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    ascend("deploy", model, "--chip", "910B3", "--offline-bundle", bundle, "--build", repository)
    for file in ("start.sh", "weights.sha256", next((bundle / "wheels").iterdir()).relative_to(bundle)):
        whole = (bundle / file).read_bytes()
        (bundle / file).write_bytes(whole + b" ")
        done = install(bundle)
        assert done.returncode == 1 and "damaged" in done.stderr, file
        (bundle / file).write_bytes(whole)
    (model / "model.safetensors").write_bytes(b"others")
    done = install(bundle)
    assert done.returncode == 1 and "not those of the list" in done.stderr
    assert "load" not in (tmp_path / "docker-calls").read_text(), "nothing was touched"


def test_a_host_without_containers_gets_a_virtual_environment(
    ascend: Ascend, repository: Path, model: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    arguments = [str(model), "--chip", "910B3", "--target", "systemd"]
    answer = ascend("deploy", *arguments, "--offline-bundle", bundle, "--build", repository)
    assert answer.code == 0, answer.err
    assert (bundle / "vllm.service").is_file() and not list((bundle / "images").iterdir())
    done = install(bundle, PYTHON=sys.executable, VENV=str(tmp_path / "venv"), PIP_FIND_LINKS="/nowhere")
    assert done.returncode == 0, done.stderr
    packages = {file.name for file in (tmp_path / "venv").glob("lib/*/site-packages/*.dist-info")}
    assert {"small-1.0.dist-info", "ascend_plugin-9.9.dist-info"} <= packages


def test_what_is_missing_is_named(ascend: Ascend, repository: Path, tmp_path: Path) -> None:
    lock_file = repository / "requirements/row.lock"
    lock_file.write_text(lock_file.read_text().replace("sha256:", "sha256:0")[:-2] + "\n")
    bundle = tmp_path / "bundle"
    arguments = ["qwen3-8b", "--chip", "910B3", "--image", "registry.local/missing:1", "--target", "compose"]
    answer = ascend("deploy", *arguments, "--offline-bundle", bundle, "--build", repository, "--json")
    assert answer.code == 1
    missing = " ".join(answer.json["missing"])
    assert "requirements/row.lock" in missing, "a file of another hash is none"
    assert "registry.local/missing:1" in missing and "weights of qwen3-8b" in missing
    assert json.loads((bundle / "bundle.json").read_text())["missing"] == answer.json["missing"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--offline-bundle", "{full}", "--build", "{repository}"], "not empty"),
        (["--offline-bundle", "{new}", "--build", "{new}"], "requirements/row.lock"),
        (["--offline-bundle", "/proc/bundle", "--build", "{repository}"], "cannot be written"),
        (["--offline-bundle", "{file}", "--build", "{repository}"], "another folder"),
        (["--offline-bundle", "{new}", "--build", "{repository}", "--open"], "--open"),
        (["--arch", "aarch64"], "--offline-bundle"),
    ],
)
def test_what_cannot_be_is_one_line(
    ascend: Ascend, repository: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    places = {"full": tmp_path / "full", "new": tmp_path / "new", "file": tmp_path / "full/file"}
    words = [word.format(repository=repository, **places) for word in more]
    answer = ascend("deploy", "qwen3-8b", "--chip", "910B3", *words)
    assert answer.code == 2 and says in answer.error_line, answer.err
