"""Mutation run of the arithmetic: does a test notice when a figure is changed? `make mutation` prints the score.

mutmut (https://mutmut.readthedocs.io) changes one expression at a time and runs the tests that reach it. It works in a
folder of its own, so that neither a failed run nor its copies lie among the sources. Exit code 1 below the least score.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "mutation"
LEAST_SCORE = 0.85
# What is mutated: arithmetic, and what reads figures that others wrote.
SOURCES = (
    "src/ascend_facts/*",
    "src/ascend_cli/plan/planner.py",
    "src/ascend_cli/bench/audit.py",
    "src/ascend_cli/bench/compare.py",
    "src/ascend_cli/bench/foreign.py",
    "src/ascend_cli/bench/judge.py",
    "src/ascend_cli/bench/metrics.py",
    "src/ascend_cli/bench/results.py",
    "src/ascend_cli/bench/svg.py",
    "src/ascend_cli/top/sample.py",
    "src/ascend_cli/hardware/npu_smi.py",
    "src/ascend_cli/serving/flags.py",
    "src/ascend_plugin/attention/masks.py",
    "src/ascend_plugin/graphs/budget.py",
    "src/ascend_plugin/graphs/events.py",
    "src/ascend_plugin/kernels/*",
    "src/ascend_plugin/ops/noise.py",
    "src/ascend_plugin/ops/structured_output.py",
    "src/ascend_plugin/runner/block_tables.py",
    "src/ascend_plugin/runner/fill.py",
    "src/ascend_plugin/runner/step_buffer.py",
)
# What must notice: tests that take seconds and start no process. mutmut runs those of them that reach a mutant.
TESTS = (
    "tests/unit/facts",
    "tests/unit/cli/test_published_models.py",
    "tests/unit/cli/test_memory_plan.py",
    "tests/unit/cli/test_arithmetic.py",
    "tests/unit/cli/test_checkpoint.py",
    "tests/unit/cli/test_models.py",
    "tests/unit/cli/test_npu_smi.py",
    "tests/unit/cli/test_plan.py",
    "tests/unit/cli/test_bench_arithmetic.py",
    "tests/unit/cli/test_bench_parsers.py",
    "tests/unit/cli/test_bench_results.py",
    "tests/unit/cli/test_bench_report.py",
    "tests/unit/cli/test_what_is_typed.py",
    "tests/unit/plugin/test_choices.py",
    "tests/unit/plugin/test_graph_arithmetic.py",
    "tests/unit/plugin/test_kernels.py",
    "tests/unit/plugin/test_packed_inputs.py",
    "tests/unit/plugin/test_step_arithmetic.py",
    "tests/unit/plugin/test_structured_output.py",
)
KILLED = ("killed", "timeout", "caught by type check", "segfault")
# Lines that are a message alone are left: what is mutated is arithmetic, and messages have tests of their own.
SETTINGS = """[mutmut]
source_paths=
    src
only_mutate=
    {sources}
also_copy=
    tests
    conftest.py
do_not_mutate_patterns=
    raise UnreadableConfig
    raise UnreadableCheckpoint
    raise UnknownChip
    raise ChipTableError
    raise ProbeFileError
    raise UsageError
    raise AscendError
    raise ValueError
    ^\\s*f?"[^"]*"[,)]*$
pytest_add_cli_args=
    -p
    no:cacheprovider
    -p
    no:randomly
pytest_add_cli_args_test_selection=
    {tests}
"""


def prepare(sources: list[str]) -> None:
    """Copy sources and tests into the folder of the run, with mutmut's settings beside them."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis")
    shutil.copytree(ROOT / "src", WORK / "src", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "unit", WORK / "tests" / "unit", ignore=ignored)
    shutil.copy(ROOT / "conftest.py", WORK)
    tests = [test for test in TESTS if (ROOT / test).exists()]
    text = SETTINGS.format(sources="\n    ".join(sources), tests="\n    ".join(tests))
    (WORK / "setup.cfg").write_text(text, encoding="utf-8")
    (WORK / "pytest.ini").write_text("[pytest]\naddopts = -q\n", encoding="utf-8")


def mutmut(arguments: list[str], log: Path) -> int:
    """Run mutmut in the folder of the run, what it prints going into a file; its exit code comes back."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    with log.open("ab") as output:
        command = [sys.executable, "-m", "mutmut", *arguments]
        return subprocess.run(command, cwd=WORK, env=environment, stdout=output, stderr=output, check=False).returncode


def outcomes() -> dict[str, str]:
    """What came of each mutant, by its name."""
    result = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=WORK, capture_output=True, text=True, check=True,
    )  # fmt: skip
    pairs = (line.strip().rpartition(": ") for line in result.stdout.splitlines() if ": " in line)
    return {name: outcome for name, _, outcome in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", default=list(SOURCES), help="files to mutate (default: all arithmetic)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tried at once")
    parser.add_argument("--sample", type=int, default=0, help="try so many, drawn at random by --seed, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--survivors", action="store_true", help="list the mutants that no test noticed")
    options = parser.parse_args()
    prepare(options.sources)
    log = WORK / "mutmut.log"
    print(f"mutants are made and tried in {WORK.relative_to(ROOT)} (progress: {log.relative_to(ROOT)})", flush=True)
    chosen: list[str] = []
    if options.sample:
        mutmut(["run", "no.mutant.has.this.name"], log)  # makes them all and tries none
        names = sorted(outcomes())
        chosen = random.Random(options.seed).sample(names, min(options.sample, len(names)))
    code = mutmut(["run", "--max-children", str(options.jobs), *chosen], log)
    found = {name: outcome for name, outcome in outcomes().items() if not chosen or name in chosen}
    if not found:
        print(f"mutmut tried nothing (exit code {code}): see {log}", file=sys.stderr)
        return 2
    counts = Counter(found.values())
    killed = sum(counts[name] for name in KILLED)
    tried = sum(counts.values()) - counts["skipped"]
    (WORK / "score.json").write_text(json.dumps({"counts": counts, "killed": killed, "tried": tried}) + "\n")
    if options.survivors:
        for name, outcome in sorted(found.items()):
            if outcome not in KILLED:
                print(f"{outcome}: {name}")
    print(f"mutation score {killed / tried:.1%}: {killed} of {tried} changes were noticed ({dict(counts)})")
    return 0 if killed / tried >= LEAST_SCORE else 1


if __name__ == "__main__":
    sys.exit(main())
