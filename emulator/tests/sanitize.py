"""Build the emulator with sanitizers and run tests on it: `python emulator/tests/sanitize.py address,undefined`.

What follows the sanitizers goes to pytest; without, the tests of the runtime, of HCCL and the fuzz of the entry points
run. `--all-libraries` builds the operators too (a quarter of an hour); otherwise those of the installed emulator are
used beside libascendcl, libemulator_math and libhccl. Reports are collected in build/sanitize/<sanitizers>/reports;
the exit code is 1 if there is one or a test fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ascend_emulator

TESTS = Path(__file__).resolve().parent
EMULATOR = TESTS.parent
TARGETS = ("ascendcl", "emulator_math", "hccl")
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so", "undefined": "libubsan.so"}


def build(sanitizers: str, folder: Path, all_libraries: bool) -> None:
    options = [f"-DEMULATOR_SANITIZE={sanitizers}", f"-DPython3_EXECUTABLE={sys.executable}"]
    subprocess.run(["cmake", "-S", EMULATOR, "-B", folder, *options], check=True)
    targets = [] if all_libraries else ["--target", *TARGETS]
    subprocess.run(["cmake", "--build", folder, "-j2", *targets], check=True)


def libraries_with(built: Path, folder: Path) -> None:
    """The libraries of the installed package, with those that were built in place of their namesakes."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(ascend_emulator.__file__).parent / "lib", folder)
    for library in built.glob("*.so"):
        shutil.copy(library, folder)


def preloaded(sanitizers: str) -> str:
    """The sanitizers' libraries: Python was not linked with them, and they must come before everything else."""
    paths = []
    for sanitizer in sanitizers.split(","):
        command = ["g++", f"-print-file-name={RUNTIMES[sanitizer]}"]
        paths.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    return ":".join(paths)


def test(sanitizers: str, folder: Path, arguments: list[str]) -> bool:
    reports = folder / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    log = f"log_path={reports}/report"
    environment = {
        **os.environ,
        "ASCEND_EMULATOR_LIB_DIR": str(folder / "lib"),
        # Python itself leaks by design. What is allocated beyond memory is refused, not reported.
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:{log}",
        "LD_PRELOAD": preloaded(sanitizers),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    passed = subprocess.run(command, env=environment, cwd=TESTS.parents[1]).returncode == 0
    found = sorted(reports.iterdir())
    for report in found:
        print(f"\n{report}:\n{report.read_text()[:3000]}")
    print(f"{len(found)} sanitizer reports in {reports}")
    return passed and not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sanitizers", choices=["address,undefined", "address", "undefined", "thread"])
    parser.add_argument("--all-libraries", action="store_true")
    known, arguments = parser.parse_known_args()
    folder = EMULATOR / "build" / "sanitize" / known.sanitizers.replace(",", "-")
    build(known.sanitizers, folder / "build", known.all_libraries)
    libraries_with(folder / "build", folder / "lib")
    chosen = [each for each in arguments if each != "--"] or [
        "-m",
        "not slow",
        *(str(TESTS / name) for name in ("runtime", "hccl", "fuzz")),
    ]
    return 0 if test(known.sanitizers, folder, chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
