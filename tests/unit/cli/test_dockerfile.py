"""Every step of the rendered Dockerfile is executed by buildah, on a base made on the spot in place of CANN's image.

The base has this machine's shell and user tools; `pip` is a stand-in that writes down what it is asked for, because
torch and vLLM are gigabytes. So what is not seen here is the installation itself, and CANN's own set_env.sh.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ascend_facts.versions import row

from .conftest import Ascend

REPOSITORY = Path(__file__).parents[3]
TOOLS = ("bash", "sh", "cat", "rm", "mkdir", "id", "env", "getent", "groupadd", "useradd", "ls")
CONTEXT = ("pyproject.toml", "README.md", "LICENSE", "emulator/VERSION")
# Writes down what it is asked for, and fails as pip does where a requirements file is not there.
PIP = """#!/bin/sh
echo "$VLLM_TARGET_DEVICE pip $*" >> /pip-calls
while [ $# -gt 0 ]; do
  if [ "$1" = "-r" ]; then [ -s "$2" ] || { echo "no $2" >&2; exit 1; }; cat "$2" >> /locked; fi
  shift
done
"""
SET_ENV = "export ASCEND_HOME_PATH=/usr/local/Ascend/ascend-toolkit/latest\n"

pytestmark = pytest.mark.skipif(
    shutil.which("buildah") is None or os.getuid() != 0, reason="needs buildah, and root for its chroot isolation"
)


def base_files(root: Path) -> None:
    """A root file system: this machine's tools with the libraries they are linked to, and stand-ins for CANN's."""
    for folder in ("etc", "tmp", "home", "proc", "dev", "usr/local/Ascend/ascend-toolkit", "usr/bin", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"{name} is not on this machine"
        _copy(Path(found).resolve(), root, root / "usr/bin" / name)
        told = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for word in told.split():
            if word.startswith("/"):
                _copy(Path(word).resolve(), root, root / word.lstrip("/"))
    for library in Path("/lib").glob("*/libnss_files*"):
        _copy(library.resolve(), root, root / str(library).lstrip("/"))
    (root / "bin").symlink_to("usr/bin")
    for name, text in {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\n", "login.defs": ""}.items():
        (root / "etc" / name).write_text(text)
    (root / "usr/bin/pip").write_text(PIP)
    (root / "usr/bin/pip").chmod(0o755)
    (root / "usr/local/Ascend/ascend-toolkit/set_env.sh").write_text(SET_ENV)


def _copy(source: Path, root: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(source, target)
    assert target.is_relative_to(root)


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.options = ["--storage-driver", "vfs", "--root", f"{folder}/store", "--runroot", f"{folder}/run"]

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["buildah", *self.options, *words], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    """A store with the base image in it; skips where buildah cannot work, as in some containers."""
    folder = tmp_path_factory.mktemp("b")
    base_files(folder / "base")
    (folder / "base.containerfile").write_text("FROM scratch\nCOPY base /\n")
    call = Buildah(folder)
    done = call(
        "bud", "--isolation", "chroot", "-t", "base", "-f", f"{folder}/base.containerfile", str(folder), check=False
    )
    if done.returncode:
        pytest.skip(f"buildah cannot build here: {done.stderr.strip().splitlines()[-1]}")
    return call


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile copies, as the repository has it; the sources themselves are not needed by a stand-in."""
    folder = tmp_path_factory.mktemp("context")
    for name in CONTEXT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
    (folder / "src").mkdir()
    shutil.copy2(REPOSITORY / "src/ascend_facts/versions.toml", folder / "src/versions.toml")
    return folder


def test_every_step_runs_and_the_image_is_what_deploy_expects(
    ascend: Ascend, buildah: Buildah, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(ascend("deploy", "--target", "dockerfile", "--chip", "310P3").out)
    arguments = ["--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base", "-t", "own"]
    buildah("bud", *arguments, "-f", str(tmp_path / "Dockerfile"), str(context))
    container = buildah("from", "localhost/own").stdout.strip()

    def run(*words: str, user: str = "") -> subprocess.CompletedProcess[str]:
        options = ["--isolation", "chroot", *(["--user", user] if user else [])]
        return buildah("run", *options, container, "--", *words, check=False)

    calls = run("/usr/bin/cat", "/pip-calls", user="0").stdout.splitlines()
    assert any(f"torch=={row().tested_torch}+cpu" in call and "--no-deps" in call for call in calls)
    assert any(call.startswith("empty pip") and "requirements/vllm.lock" in call for call in calls)
    assert all("--no-deps" in call for call in calls), "nothing outside the row"
    unlocked = [call for call in calls if "--require-hashes" not in call]
    assert len(unlocked) == 2, "only torch's CPU build, which no index has a hash of, and the sources beside it"
    locked = run("/usr/bin/cat", "/locked", user="0").stdout
    assert f"vllm=={row().vllm} " in locked and f"torch_npu=={row().tested_torch} " in locked.replace("-npu", "_npu")
    assert run("/usr/bin/ls", "/build").stdout == "", "the sources do not stay"

    assert run("/usr/bin/id", "-u").stdout.strip() == "1000", "not root"
    assert "HwHiAiUser" in run("/usr/bin/getent", "passwd", "1000").stdout, "HCCL looks the user up"

    inspected = buildah("inspect", "--type", "image", "localhost/own").stdout
    assert '"1000:1000"' in inspected and "8000/health" in inspected
    entry = ["/bin/bash", "-c", _entrypoint(inspected), "--"]
    shown = run(*entry, "/bin/bash", "-c", 'echo "$ASCEND_HOME_PATH"')
    assert shown.stdout.strip() == "/usr/local/Ascend/ascend-toolkit/latest", "the entrypoint sources CANN's file"


def _entrypoint(inspected: str) -> str:
    import json

    words = json.loads(inspected)["Docker"]["config"]["Entrypoint"]
    assert words[:2] == ["/bin/bash", "-c"] and words[-1] == "--"
    return str(words[2])


def test_a_user_1000_of_the_base_is_kept(ascend: Ascend, buildah: Buildah, context: Path, tmp_path: Path) -> None:
    """CANN's own images may have one already: the build must not fail, nor rename it."""
    (tmp_path / "with-user").write_text(
        "FROM localhost/base\nRUN groupadd --gid 1000 other && useradd --uid 1000 --gid 1000 --create-home other\n"
    )
    buildah("bud", "--isolation", "chroot", "-t", "with-user", "-f", str(tmp_path / "with-user"), str(tmp_path))
    (tmp_path / "Dockerfile").write_text(ascend("deploy", "--target", "dockerfile", "--chip", "910B3").out)
    arguments = ["--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/with-user", "-t", "two"]
    buildah("bud", *arguments, "-f", str(tmp_path / "Dockerfile"), str(context))
    container = buildah("from", "localhost/two").stdout.strip()
    found = buildah("run", "--isolation", "chroot", container, "--", "/usr/bin/getent", "passwd", "1000").stdout
    assert found.startswith("other:")
