"""Build this repository against the newest release of vLLM in an environment of its own, and print what broke.

    python3.11 scripts/newest_vllm.py [--version 0.34.0] [--folder .venv-newest-vllm]

For a scheduled job: exit code 0 if nothing broke or the newest release is the row's, 1 if something did, 2 if it could
not be installed. What to do about it is in docs/upgrading-vllm.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from setup import EMULATOR_FILES, ROOT, ROW, SetupError, Step, Venv, set_up, text

# Names first, as they say what to look at; then what runs, the cheapest first.
CHECKS = {
    "names of vLLM that moved": ["-m", "tests.upstream"],
    "patches that are no longer needed": ["-m", "pytest", "-q", "tests/upstream/test_patches.py"],
    "the plugin's parts": ["-m", "pytest", "-q", "tests/unit/plugin", "tests/unit/test_imports.py"],
    "is everything alive": ["-m", "pytest", "-q", "tests/tiny"],
}
SHOWN_LINES = 60


def newest(python: Path) -> str:
    """The newest release that the package index offers. Raises SetupError."""
    command = [str(python), "-m", "pip", "index", "versions", "vllm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^vllm \(([\w.]+)\)", done.stdout, re.MULTILINE)
    if found is None:
        raise SetupError(f"`{' '.join(command[1:])}` named no release: {done.stderr.strip()[-500:]}")
    return found[1]


def steps(venv: Venv, version: str) -> list[Step]:
    """The newest vLLM with what it needs, which may be newer than the locks; torch stays the row's."""

    def install_plugin() -> None:
        venv.pip("--no-build-isolation", "-e", f"{ROOT}[models,test]")
        venv.pip_locked("smollm2.lock")

    return [
        Step("torch", "PyTorch for CPU", lambda: venv.install_torch(*reversed(ROW["torch"])), text(*ROW["torch"])),
        Step("stack", f"torch_npu and vLLM {version}", lambda: venv.install_vllm(version), text(version)),
        Step("emulator", "ascend-emulator", venv.install_emulator, EMULATOR_FILES),
        Step("plugin", "ascend-plugin and test tools", install_plugin, text(version)),
    ]


def check(venv: Venv) -> list[str]:
    """Run every check; returns the titles of those that found something."""
    environment = os.environ | {"ASCEND_PLUGIN_ANY_VLLM": "1", "OMP_NUM_THREADS": "1"}
    broken = []
    for title, arguments in CHECKS.items():
        done = subprocess.run(
            [str(venv.python), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        print(f"== {title}: {'nothing' if done.returncode == 0 else 'see below'}", flush=True)
        if done.returncode:
            broken.append(title)
            print("\n".join((done.stdout + done.stderr).splitlines()[-SHOWN_LINES:]), flush=True)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", help="another release than the newest")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-newest-vllm", help="the environment")
    arguments = parser.parse_args()
    # The row's constraints less vLLM and what it pins.
    pinned = arguments.folder.with_suffix(".txt")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("vllm", "transformers"))]
    pinned.write_text("\n".join(kept) + "\n")
    venv = Venv(arguments.folder, pinned)
    try:
        venv.create()
        version = arguments.version or newest(venv.python)
        print(f"The row has vLLM {ROW['vllm']}, this is {version}.", flush=True)
        if version == ROW["vllm"] and not arguments.version:
            return 0
        set_up(venv, steps(venv, version))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        pinned.unlink(missing_ok=True)
    broken = check(venv)
    print(f"vLLM {version}: " + (f"{'; '.join(broken)}. See docs/upgrading-vllm.md." if broken else "nothing broke."))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
