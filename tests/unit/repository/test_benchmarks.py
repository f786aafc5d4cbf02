"""`python -m benchmarks all` runs every benchmark there is, with options that it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import all as every


def test_every_benchmark_is_in_a_quick_run() -> None:
    assert set(every.QUICK) == set(benchmarks.names()) - {"all"}


def test_a_benchmark_that_fails_fails_the_run(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    failed = every.run("calibrate", ("--no-such-option",), figures)
    assert (failed.exit_code, failed.figures) == (2, None)
    assert "| calibrate | 0 | FAILED |" in "\n".join(every.table([every.Run("calibrate", 0.2, 2, None)]))


@pytest.mark.parametrize("name", sorted(every.QUICK))
def test_a_benchmark_takes_its_quick_options(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--help"], capture_output=True, text=True, check=True
    )
    for option in every.QUICK[name]:
        if option.startswith("--"):
            assert option in done.stdout
    assert "--json" in done.stdout
