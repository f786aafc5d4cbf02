"""R4, R14, R12: an engine that runs for long takes nothing more, does nothing more, and can be repeated from its seed.

In the timing clock a step costs the host alone, so that many fit into an hour; how many were run is recorded. A failing
run is repeated with `python -m tests.reliability.soak MODEL STEPS SEED OUT`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.launcher import emulate

from .results import record, record_largest
from .scale import EVERYTHING, SOAK_STEPS

SEED = 20261128
pytestmark = pytest.mark.slow  # minutes of engine steps
REPLAYED_STEPS = 400 if EVERYTHING else 150
# A million steps are an hour and more of decoding; 1 MB a minute would be 60 MB in them.
SLOPE_LIMIT_MIB = 60.0 if EVERYTHING else 4000.0  # a short run measures no slope, only that nothing grows wildly


def soak(model: Path, folder: Path, steps: int, seed: int, clock: str, **environment: str) -> dict[str, Any]:
    out = folder / f"{clock}-{seed}-{len(list(folder.iterdir()))}.json"
    with emulate(chip="310P3", count=1, clock=clock) as machine:
        command = [sys.executable, "-m", "tests.reliability.soak", str(model), str(steps), str(seed), str(out)]
        done = subprocess.run(
            command, env={**machine.environment, **environment}, capture_output=True, text=True, check=False
        )
    assert out.is_file(), done.stderr[-3000:]
    return dict(json.loads(out.read_text()))


@pytest.mark.timeout(7200)
@pytest.mark.breaks("soak.leave: abort in the front end only")
def test_a_long_mixed_load(tiny: Path, tmp_path: Path) -> None:
    found = soak(tiny, tmp_path, SOAK_STEPS, SEED, "timing")
    assert found["running"] == 0
    assert found["free_blocks"][0] == found["free_blocks"][1], "blocks leaked"
    assert found["aborted"] > 0 and found["finished"] > 0 and found["preemptions"] > 0
    assert len(set(found["launches_a_step"])) == 1, found["launches_a_step"]
    assert found["memory_slope_mib_a_million_steps"] < SLOPE_LIMIT_MIB, found["memory_mib"]
    record("R4", "engine steps soaked", found["steps"])
    record("R4", "requests finished", found["finished"])
    record("R4", "requests aborted", found["aborted"])
    record("R4", "preemptions", found["preemptions"])
    record_largest("R4", "memory slope, MiB in a million steps", round(found["memory_slope_mib_a_million_steps"], 1))


@pytest.mark.breaks("soak.Soak: random.Random() without the seed")
def test_a_recorded_load_can_be_repeated(tiny: Path, tmp_path: Path) -> None:
    """One seed: the same tokens, the same schedule of every step, the same counters; another seed: others."""
    runs = [soak(tiny, tmp_path, REPLAYED_STEPS, seed, "functional") for seed in (SEED, SEED, SEED + 1)]
    first, second, other = runs
    kept = ("requests", "finished", "aborted", "tokens", "preemptions", "launches", "digest")
    assert {name: first[name] for name in kept} == {name: second[name] for name in kept}
    assert first["digest"] != other["digest"]
    record("R14", "steps replayed, same tokens, schedule and counters", REPLAYED_STEPS)
