"""op-plugin's own operator tests on an emulated chip: `python op_plugin.py --source CHECKOUT [FILE...]`.

CHECKOUT is a clone of https://gitee.com/ascend/op-plugin (or its GitHub mirror); none of it is part of this project.
The files that run, and the tests among them that cannot pass, each with its reason, are in op_plugin.yaml. The exit
code is 1 if an unlisted test fails, a listed one passes (take it off the list), fewer than 95 % of all tests pass, or
nothing ran of a file that is not listed as such (`runs_nothing`): a file of which every test was skipped shows nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from ascend_emulator.launcher import Machine, emulate

HERE = Path(__file__).parent
REQUIRED_SHARE = 0.95


@dataclass(frozen=True)
class Outcome:
    test: str  # test_base_ops/test_abs.py::TestAbs::test_abs_shape_format
    status: str  # passed, failed, skipped
    reason: str = ""
    cpu_s: float = 0.0


def run_files(machine: Machine, tests: Path, files: list[str], jobs: int, answers: Path) -> None:
    """Every test of these files; interrupted, what has run is in `answers`."""
    command = [sys.executable, str(HERE / "run_unittests.py"), str(answers), str(tests), str(jobs), *files]
    with suppress(KeyboardInterrupt):
        machine.run(command, check=True)


def read_outcomes(answers: Path, files: set[str]) -> list[Outcome]:
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    return [Outcome(**line["outcome"]) for line in lines if "outcome" in line and line["file"] in files]


def that_ran_nothing(outcomes: list[Outcome], files: list[str]) -> dict[str, str]:
    """The files without a test that passed or failed, with what their tests say of it."""
    ran = {outcome.test.split("::")[0] for outcome in outcomes if outcome.status != "skipped"}
    reasons: dict[str, set[str]] = {file: set() for file in files if file not in ran}
    for outcome in outcomes:
        file = outcome.test.split("::")[0]
        if file in reasons:
            reasons[file].add(outcome.reason)
    return {file: "; ".join(sorted(said)) or "it has no test" for file, said in reasons.items()}


def report(outcomes: list[Outcome], exceptions: dict[str, str], files: list[str], runs_nothing: dict[str, str]) -> int:
    """Print the counts and everything unexpected; the exit code."""
    counts = Counter(outcome.status for outcome in outcomes)
    failures = {outcome.test: outcome.reason for outcome in outcomes if outcome.status == "failed"}
    unexpected = {test: reason for test, reason in failures.items() if test not in exceptions}
    passed = {outcome.test for outcome in outcomes if outcome.status == "passed"}
    mended = sorted(passed & exceptions.keys())
    for test in sorted(failures.keys() & exceptions.keys()):
        print(f"expected to fail  {test}: {exceptions[test]}")
    for test, reason in sorted(unexpected.items()):
        print(f"FAILED            {test}: {reason}")
    for test in mended:
        print(f"PASSES NOW        {test}: take it off the list in op_plugin.yaml")
    idle = that_ran_nothing(outcomes, files)
    silent = sorted(idle.keys() - runs_nothing.keys())
    awake = sorted(runs_nothing.keys() & (set(files) - idle.keys()))
    for file in sorted(idle.keys() & runs_nothing.keys()):
        print(f"ran nothing       {file}: {runs_nothing[file]}")
    for file in silent:
        print(f"RAN NOTHING       {file}: {idle[file]}")
    for file in awake:
        print(f"RUNS NOW          {file}: take it off runs_nothing in op_plugin.yaml")
    ran = counts["passed"] + counts["failed"]
    share = counts["passed"] / ran if ran else 0.0
    known = len(failures) - len(unexpected)
    print(
        f"{counts['passed']} passed, {counts['failed']} failed ({known} with a known reason), "
        f"{counts['skipped']} skipped: {share:.1%} of {ran}, in {len(files) - len(idle)} files; "
        f"nothing ran of {len(idle)}"
    )
    return 0 if ran and share >= REQUIRED_SHARE and not (unexpected or mended or silent or awake) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of op-plugin")
    parser.add_argument("--chip", default="910B3", help="chip to emulate (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time (default: %(default)s)")
    parser.add_argument(
        "--answers",
        type=Path,
        help="every test's outcome and CPU time, as lines of JSON; what is there already is not run again",
    )
    parser.add_argument("files", nargs="*", help="test_base_ops/test_abs.py ... (default: the reviewed list)")
    arguments = parser.parse_args()
    tests = arguments.source / "test"
    if not (tests / "test_base_ops").is_dir():
        parser.error(f"{arguments.source} is no checkout of op-plugin: it has no test/test_base_ops")
    reviewed = yaml.safe_load((HERE / "op_plugin.yaml").read_text())
    files = arguments.files or [f"{folder}/{name}.py" for folder, names in reviewed["files"].items() for name in names]
    missing = [file for file in files if not (tests / file).is_file()]
    if missing:
        parser.error(f"not in {tests}: {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder, emulate(chip=arguments.chip) as machine:
        answers = arguments.answers or Path(folder) / "answers.jsonl"
        answers.touch()
        run_files(machine, tests, files, arguments.jobs, answers)
        outcomes = read_outcomes(answers, set(files))
    runs_nothing = {file: reason for file, reason in (reviewed["runs_nothing"] or {}).items() if file in files}
    return report(outcomes, reviewed["exceptions"] or {}, files, runs_nothing)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The tests make arrays of hundreds of megabytes: pages are kept, not given back and cleared again.
    os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(4 << 30))
    sys.exit(main())
