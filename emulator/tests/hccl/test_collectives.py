"""HCCL between processes: every collective gives gloo's result, groups and graphs work, a killed rank is noticed."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ascend_emulator.launcher import Machine

HERE = Path(__file__).parent
SHARED_MEMORY = Path("/dev/shm")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(machine: Machine, program: str, size: int, **environment: str) -> list[tuple[int, str]]:
    """Exit code and output of every rank."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.ranks", program, str(rank), str(size), port],
            env={**machine.environment, "OMP_NUM_THREADS": "1", **environment},
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    results = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            results.append((process.returncode, output))
    finally:
        for process in processes:
            process.kill()
    return results


def assert_success(results: list[tuple[int, str]]) -> None:
    for rank, (code, output) in enumerate(results):
        assert code == 0, f"rank {rank}:\n{output[-3000:]}"


def test_two_ranks_on_atlas_inference(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="310P3", count=2), "everything on 310P", 2))


def test_two_ranks_on_a2(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="910B3", count=2), "everything on 910B", 2))


@pytest.mark.slow
def test_four_ranks_on_a2(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="910B3", count=4), "everything on 910B", 4))


@pytest.mark.slow
def test_eight_ranks(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="910B3", count=8), "reductions and gathers", 8))


def test_groups_at_once(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="310P3", count=4), "subgroups", 4))


def test_collectives_in_a_graph(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="310P3", count=2), "captured", 2))


def test_two_graphs_of_64_layers_fit_a_310p(emulated: Callable[..., Machine]) -> None:
    assert_success(run(emulated(chip="310P3", count=2), "captured_twice", 2))


def test_a_killed_rank_is_noticed_and_leaves_nothing(emulated: Callable[..., Machine]) -> None:
    before = set(SHARED_MEMORY.iterdir())
    results = run(emulated(chip="310P3", count=3), "dies", 3)
    assert results[2][0] == -9
    for code, output in results[:2]:
        assert code in (3, -6), output[-3000:]  # or torch_npu's watchdog was first: it aborts the process
        assert "died" in output
    assert not {
        path.name for path in set(SHARED_MEMORY.iterdir()) - before if "ascend" in path.name or "hccl" in path.name
    }


def test_what_the_chip_lacks_is_refused(emulated: Callable[..., Machine]) -> None:
    # Without torch_npu's task queue the refusal is raised by the call itself.
    for code, output in run(emulated(chip="310P3", count=2), "unsupported", 2, TASK_QUEUE_ENABLE="0"):
        assert code == 3, output[-3000:]
        assert "HcclBroadcast is not supported on Atlas inference products" in output
