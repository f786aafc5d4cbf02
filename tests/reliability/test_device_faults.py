"""R5, R7: whatever the chip does, at whatever moment: the engine ends or goes on, and says in one line which and why.

Allocation k and launch k fail for k from the first to beyond the last, so through every phase from opening the chip to
sampling; SQLite tests its memory in this way.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.launcher import emulate

from ascend_plugin import ENVIRONMENT_DEFAULTS

from .results import record
from .scale import EVERYTHING
from .server import started

# Engines one after another: minutes, too long for `make test`.
pytestmark = pytest.mark.slow

HANG_S = 150  # far above what any of these engines takes
OPTIONS = {
    "dtype": "float16",
    "max_model_len": 512,
    "max_num_batched_tokens": 256,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.05,
    "num_gpu_blocks_override": 32,
}
PROMPTS = [[5, 6, 7, 8, 9], [15, 16, 17]]
PHASES = re.compile(r"while (it was opened|weights were loaded|memory was measured|the KV cache was allocated|"
                    r"graphs were captured|a step was computed|tokens were sampled)")  # fmt: skip
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Engines with these faults, one after another: run([fault, ...], ...) -> answers."""

    def call(
        *faults: list[dict[str, Any]], chip: str = "310P3", count: int = 1, limit_s: int = HANG_S, **options: Any
    ) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("faults")
        environment: dict[str, str] = options.pop("environment", {})
        jobs = []
        for number, list_of_faults in enumerate(faults):
            jobs.append(
                {
                    "model": str(tiny),
                    "options": OPTIONS | options,
                    "faults": {"seed": number, "faults": list_of_faults},
                    "prompts": PROMPTS,
                    "tokens": 6,
                    "limit_s": limit_s,
                }
            )
        order = folder / "jobs.json"
        order.write_text(json.dumps(jobs))
        current = folder / "faults.json"
        current.write_text('{"faults": []}')
        with emulate(chip=chip, count=count, faults=current) as machine:
            command = [sys.executable, "-m", "tests.reliability.engines", str(order), str(folder)]
            done = subprocess.run(
                command,
                env=machine.environment | environment,
                capture_output=True,
                text=True,
                timeout=3000,
                check=False,
            )
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(jobs))]

    return call


def check(answers: list[dict[str, Any]], wanted: list[list[int]]) -> dict[str, int]:
    """Every engine ended with one line of ours, or went on and answered rightly; phases that were struck, counted."""
    struck: dict[str, int] = {}
    for number, answer in enumerate(answers):
        assert answer["ended"] in ("finished", "raised"), f"{number}: {answer}"
        if answer["ended"] == "finished":
            assert answer["tokens"] == wanted, f"{number}: wrong answers and not a word"
            continue
        assert answer["kind"] == "DeviceFailed", f"{number}: {answer['kind']}: {answer['error'][:500]}"
        phase = PHASES.search(answer["error"])
        assert phase is not None and "\n" not in answer["error"] and len(answer["error"]) < 500, answer["error"]
        struck[phase[1]] = struck.get(phase[1], 0) + 1
    return struck


@pytest.mark.breaks("phases.phase: leave methods as they are")
def test_allocations_and_launches_fail_at_any_moment(run: Run) -> None:
    # Some 25 allocations are made: PyTorch's allocator asks for large parts. Launches are told as parts of all of them.
    allocations = range(1, 31, 1 if EVERYTHING else 6)
    parts = [number / 8 for number in range(9)] if EVERYTHING else [0, 0.3, 0.95]
    faults: list[list[dict[str, Any]]] = [[]]
    faults += [[{"kind": "allocation", "nth": number, "times": 2}] for number in allocations]
    for code in (507014, 507015, 507018):
        faults += [[{"kind": "launch", "part": part, "code": code}] for part in parts]
    faults += [[{"kind": "chip_lost", "part": part}] for part in parts]
    answers = run(*faults)
    assert answers[0]["ended"] == "finished", answers[0]
    struck = check(answers, answers[0]["tokens"])
    # A step's faults are told where its tokens are waited for, if nothing waited before.
    assert "weights were loaded" in struck and {"a step was computed", "tokens were sampled"} & set(struck), struck
    record("R5", "faults of allocation, launch and chip injected", len(faults) - 1)
    for phase, number in struck.items():
        record("R5", f"told while {phase}", number)


@pytest.mark.breaks("device_errors.toml: leave -8020 out")
def test_a_busy_chip_is_told(run: Run) -> None:
    (answer,) = run([{"kind": "chip_busy"}])
    assert answer["kind"] == "DeviceFailed"
    assert "another process or container holds the chip" in answer["error"]
    assert "npu-smi info" in answer["error"]
    record("R5", "faults of allocation, launch and chip injected", 1)


@pytest.mark.breaks("plugin.ENVIRONMENT_DEFAULTS: leave HCCL_EXEC_TIMEOUT out")
@pytest.mark.breaks("plugin.register: let its defaults win")
def test_a_rank_that_never_comes_is_named_in_time(run: Run) -> None:
    """A collective stalls for an hour; HCCL's own limit would be 1,836 s, the plugin's is a tenth, a user's his own."""
    assert float(ENVIRONMENT_DEFAULTS.get("HCCL_EXEC_TIMEOUT", "1836")) < 300
    (answer,) = run(
        [{"kind": "collective_stall", "chip": 1, "nth": 30, "seconds": 3600}],
        chip="910B3",
        count=2,
        tensor_parallel_size=2,
        environment={"HCCL_EXEC_TIMEOUT": "5"},
    )
    assert answer["ended"] == "raised"
    record("R7", "collectives stalled", 1)


@pytest.mark.breaks("bootstrap.main: leave last_words out")
def test_a_server_ends_with_the_cause_as_its_last_line(tiny: Path, tmp_path: Path) -> None:
    """An operator times out under load: clients are told, the exit code is 1, the last line says what to do."""
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"faults": [{"kind": "launch", "nth": 4000, "code": 507014}]}))
    with started(tiny, log=tmp_path / "log", environment={"ASCEND_EMULATOR_FAULTS": str(faults)}) as server:
        stream = server.stream(30000)
        assert server.process.wait(120) == 1
        assert not stream.join(60).is_success
    last = server.log.read_text(errors="replace").splitlines()[-1]
    assert re.search(r"Chip 0, while (a step was computed|tokens were sampled): an operator did not end", last), last
    assert "507014" in last and "--max-num-seqs" in last
    record("R5", "faults of allocation, launch and chip injected", 1)


@pytest.mark.slow
@pytest.mark.breaks("plugin.ENVIRONMENT_DEFAULTS: wait a second for a rank, and one chip a thousand times slower")
def test_a_slow_chip_is_waited_for(run: Run) -> None:
    """One rank ten times slower: the same answers."""
    fast, slow = run([], [{"kind": "slow_chip", "chip": 1, "factor": 10}], count=2, tensor_parallel_size=2)
    assert fast["ended"] == slow["ended"] == "finished"
    assert fast["tokens"] == slow["tokens"]
    record("R7", "slow ranks waited for", 1)
