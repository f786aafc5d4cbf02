"""Random calls of every operator must end in an answer: no signal, no hang, no code that is not CANN's.

Seeded: a seed that fails is in the message, and `ASCEND_FUZZ="MODE SEED"` repeats it alone. ASCEND_FUZZ_SECONDS (6) is
the time of each mode; ASCEND_FUZZ_FIRST_SEED (1) where it begins.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ascend_emulator.launcher import emulate
from ascend_emulator.worker import Worker, WorkerDied

from .on_chip import Tally, run

MODES = ("valid", "garbage", "serving")
SECONDS = float(os.environ.get("ASCEND_FUZZ_SECONDS", "6"))
FIRST_SEED = int(os.environ.get("ASCEND_FUZZ_FIRST_SEED", "1"))
CHOSEN = os.environ.get("ASCEND_FUZZ", "").split()


def fuzz(mode: str, first_seed: int, count: int, seconds: float, folder: Path, chip: str) -> Tally:
    note = folder / "call"
    with emulate(chip=chip, rules="all" if mode == "serving" else "none") as machine:
        worker = Worker({**machine.environment, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "OMP_NUM_THREADS": "1"})
        try:
            tally: Tally = worker.call(run, mode, first_seed, count, seconds, str(note))
            return tally
        except WorkerDied as death:
            pytest.fail(f"{death}\n{note.read_text()}", pytrace=False)
        finally:
            worker.close()


@pytest.mark.parametrize("mode", MODES)
def test_every_call_is_answered(mode: str, tmp_path: Path) -> None:
    if CHOSEN:
        if CHOSEN[0] != mode:
            pytest.skip(f"ASCEND_FUZZ chose {CHOSEN[0]}")
        tally = fuzz(mode, int(CHOSEN[1]), 1, 3600, tmp_path, "910B3")
    else:
        tally = fuzz(mode, FIRST_SEED, 1 << 30, SECONDS, tmp_path, "310P3" if mode == "garbage" else "910B3")
    print(f"{mode}: {tally}")
    assert tally.calls > 0
    assert tally.foreign_codes == {}
