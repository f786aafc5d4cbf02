"""Run vLLM's own tests against the plugin and print the counts.

    python -m tests.vllm_suite SDIST [--chip CHIP] [FILE]...

SDIST is vLLM's source distribution, unpacked: `VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE=0.33.0 pip download
--no-deps --no-build-isolation --no-binary vllm vllm==0.33.0`. What runs is in
allowed.yaml, each file with what it shows and each left-out test with its reason. Exit code 1 if a test that should
pass did not, 2 if the sources are not there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from tests.vllm_suite import hub

ALLOWED = Path(__file__).with_name("allowed.yaml")
TEST_TIMEOUT_S = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path, help="vLLM's source distribution, unpacked")
    parser.add_argument("--chip", default="910B3", help="emulated chip (default: 910B3)")
    parser.add_argument("files", nargs="*", help="files of allowed.yaml (default: all)")
    arguments = parser.parse_args()
    if not (arguments.sdist / "tests" / "conftest.py").is_file():
        print(
            f"There are no tests of vLLM in {arguments.sdist}: give its unpacked source distribution.", file=sys.stderr
        )
        return 2
    allowed: dict[str, Any] = yaml.safe_load(ALLOWED.read_text())
    totals = {"passed": 0, "skipped": 0, "failed": 0}
    with tempfile.TemporaryDirectory(prefix="vllm-suite-") as folder:
        # A copy beside no `vllm` folder: the package under test is the installed one, not the sources'.
        shutil.copytree(arguments.sdist / "tests", Path(folder) / "tests")
        hub.write(Path(folder) / "hub")
        for name in arguments.files or allowed:
            counts = run_file(Path(folder), name, allowed[name], arguments.chip)
            for outcome, count in counts.items():
                totals[outcome] += count
            left_out = len(allowed[name].get("leave_out", {}))
            print(f"{name}: {describe(counts)}" + (f", {left_out} patterns left out" if left_out else ""), flush=True)
    print(f"vLLM's own tests on {arguments.chip}: {describe(totals)}")
    return 1 if totals["failed"] else 0


def run_file(folder: Path, name: str, entry: dict[str, Any], chip: str) -> dict[str, int]:
    """Run one file's tests but those left out; counts by outcome. A file that cannot be collected counts as failed."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    expression = " and ".join(f"not {pattern}" for pattern in entry.get("leave_out", {}))
    command = [sys.executable, "-m", "pytest", f"tests/{name}", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += [
        "-p",
        "tests_worker_setup_plugin",
        f"--timeout={TEST_TIMEOUT_S}",
        f"--junitxml={report}",
        "-k",
        expression,
    ]
    shutil.copy(Path(__file__).with_name("worker_setup_plugin.py"), folder / "tests_worker_setup_plugin.py")
    environment = os.environ | {"ASCEND_EMULATOR_CHIP": chip, "PYTHONPATH": str(folder)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if not report.is_file():
        print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
        return {"passed": 0, "skipped": 0, "failed": 1}
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        outcome = "failed" if outcomes & {"failure", "error"} else "skipped" if "skipped" in outcomes else "passed"
        counts[outcome] += 1
        if outcome == "failed":
            print(f"  failed: {name}::{case.get('name')}", file=sys.stderr)
    return counts


def describe(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "passed")


if __name__ == "__main__":
    sys.exit(main())
