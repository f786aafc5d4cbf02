"""A seeded fuzz of the C entry points of libascendcl and libhccl: no call ends the process or hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ascend_emulator.launcher import emulate

from .calls import LOG_BYTES

HERE = Path(__file__).parent
CALLS = 500  # for one seed, which has a device reset and handles of its own
PATIENCE_S = 600  # for one call
POLL_S = 10
# CANN's codes have six digits: 1xxxxx for the program, 2xxxxx for what is lacking or unsupported, 5xxxxx for the
# device, 161xxx and 561xxx of aclnn. HCCL's results are below 30.
CANN_CODES = range(100000, 600000)


def run(folder: Path, first_seed: int, seeds: int, calls: int = CALLS) -> dict[str, dict[str, int]]:
    """How often each function answered with each code."""
    log = folder / "call.txt"
    log.write_bytes(bytes(LOG_BYTES))
    command = [sys.executable, "-m", f"{__package__}.calls", str(log), str(first_seed), str(seeds), str(calls)]
    with emulate(chip="910B3", count=1) as machine:
        environment = {**os.environ, **machine.environment, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(  # in a folder of its own: some functions write a file of any name
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        output = output_of(process, log)
    if process.returncode != 0:
        pytest.fail(f"ended with {process.returncode} in {under_way(log)}")
    answers: dict[str, dict[str, int]] = json.loads(output.splitlines()[-1])["answers"]
    return answers


def output_of(process: subprocess.Popen[str], log: Path) -> str:
    """Until it ends, however slow the machine: only a call that is under way for PATIENCE_S is a hang."""
    call, since = "", time.monotonic()
    while True:
        try:
            return process.communicate(timeout=POLL_S)[0]
        except subprocess.TimeoutExpired:
            if (now := under_way(log)) != call:
                call, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                process.kill()
                process.communicate()
                pytest.fail(f"hangs in {call}")


def under_way(log: Path) -> str:
    return log.read_bytes().rstrip(b"\0").decode()


def check(answers: dict[str, dict[str, int]]) -> None:
    codes = {int(code) for counts in answers.values() for code in counts}
    assert {code for code in codes if code > 30} <= set(CANN_CODES)
    assert min(codes) >= 0
    # The fuzz reaches what lies behind the checks: most functions succeed at times, and most refuse at times.
    succeed = sum("0" in counts for counts in answers.values())
    refuse = sum(any(code != "0" for code in counts) for counts in answers.values())
    calls = sum(sum(counts.values()) for counts in answers.values())
    print(f"{calls} calls answered by {len(answers)} functions: {succeed} succeed at times, {refuse} refuse at times")
    assert succeed > len(answers) * 0.5
    assert refuse > len(answers) * 0.7


def test_random_calls(tmp_path: Path) -> None:
    check(run(tmp_path, first_seed=0, seeds=300))


@pytest.mark.slow
def test_a_million_random_calls(tmp_path: Path) -> None:
    check(run(tmp_path, first_seed=1000, seeds=2000))
