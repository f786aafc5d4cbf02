"""Failures on demand surface where those of hardware do, and settings that cannot be are refused with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ascend_emulator.worker import Worker

if TYPE_CHECKING:
    from ascend_emulator.launcher import Machine

Start = Callable[..., Worker]


@pytest.fixture
def start(emulated: Callable[..., Machine], tmp_path: Path) -> Iterator[Start]:
    """A process on chips that fail as told: start({"kind": "launch", ...}, seed=1)."""
    workers = []

    def begin(*faults: dict[str, Any], seed: int = 0, **environment: str) -> Worker:
        description = tmp_path / f"faults-{len(workers)}.json"
        description.write_text(json.dumps({"seed": seed, "faults": faults}))
        machine = emulated(chip="910B3", count=2, faults=description)
        workers.append(Worker({**machine.environment, "TASK_QUEUE_ENABLE": "0", **environment}))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.close()


def add_until_error(times: int) -> tuple[int, str]:
    """How many additions were launched before one, or the synchronization after them, raised."""
    import torch

    value = torch.zeros(4, device="npu")
    for step in range(times):
        try:
            value = value + 1
            torch.npu.current_stream().synchronize()
        except RuntimeError as error:
            return step, str(error)
    return times, ""


@pytest.mark.parametrize(("code", "cause"), [(507014, "timed out"), (507015, "AI core"), (507018, "AI CPU")])
def test_a_failed_launch_shows_at_the_synchronization(start: Start, code: int, cause: str) -> None:
    worker = start({"kind": "launch", "operator": "aclnnAdds", "nth": 3, "code": code})
    steps, text = worker.call(add_until_error, 10)
    assert steps == 2
    assert str(code) in text
    assert cause in text
    assert "aclnnAdds" in text


def fail_then_continue() -> list[str]:
    import torch

    value = torch.zeros(4, device="npu")
    errors = []
    for action in (lambda: value + 1, torch.npu.synchronize, lambda: value + 1, torch.npu.synchronize):
        try:
            action()
        except RuntimeError as error:
            errors.append("507015" if "507015" in str(error) else str(error))
        else:
            errors.append("")
    return errors


def test_a_failure_stays_until_the_device_is_reset(start: Start) -> None:
    worker = start({"kind": "launch", "operator": "aclnnAdds", "nth": 1})
    assert worker.call(fail_then_continue) == ["", "507015", "507015", "507015"]


def test_a_lost_chip_stops_answering(start: Start) -> None:
    steps, text = start({"kind": "chip_lost", "nth": 4}).call(add_until_error, 10)
    assert steps < 4
    assert "507010" in text


def allocations() -> list[bool]:
    import torch

    results = []
    for _ in range(4):
        try:
            torch.npu.caching_allocator_alloc(64 << 20)
            results.append(True)
        except RuntimeError as error:
            assert "out of memory" in str(error)
            results.append(False)
    return results


def test_an_allocation_fails_on_demand(start: Start) -> None:
    # torch_npu frees its cache and tries once more: only two failures in a row reach the program.
    assert start({"kind": "allocation", "nth": 3, "times": 2}).call(allocations) == [True, True, False, True]


def set_devices() -> list[str]:
    import torch

    answers = []
    for device in (0, 1):
        try:
            torch.npu.set_device(device)
            torch.npu.synchronize()
            answers.append("")
        except RuntimeError as error:
            answers.append(str(error))
    return answers


def test_a_busy_chip_is_refused_as_the_driver_does(start: Start) -> None:
    first, second = start({"kind": "chip_busy", "chip": 1}).call(set_devices)
    assert first == ""
    assert "507033" in second
    assert "-8020" in second


def corrupted_positions() -> list[int]:
    import torch

    host = torch.zeros(1 << 16, dtype=torch.uint8)
    device = host.npu()
    return [int(index) for index in torch.nonzero(device.cpu())]


def test_a_corrupted_copy_is_the_same_for_the_same_seed(start: Start) -> None:
    fault = {"kind": "corrupted_copy", "direction": "device_to_host", "nth": 1}
    runs = [start(fault, seed=seed).call(corrupted_positions) for seed in (1, 1, 2)]
    assert [len(positions) for positions in runs] == [1, 1, 1]
    assert runs[0] == runs[1] != runs[2]


def device_ms(times: int) -> float:
    import torch

    value = torch.zeros(1 << 20, device="npu")
    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        value = value + 1
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def test_a_slow_chip_is_slower(start: Start) -> None:
    assert start({"kind": "slow_chip", "factor": 50}).call(device_ms, 20) > 3 * start().call(device_ms, 20)


def count_devices() -> str:
    import torch

    try:
        torch.npu.set_device(0)
        torch.zeros(1, device="npu")
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"kind": "gremlin"}, '"kind" must be one of allocation, chip_busy'),
        ({"kind": "launch"}, 'give either "nth" or "rate"'),
        ({"kind": "launch", "nth": 1, "oprator": "x"}, '"oprator" is not a property of a fault'),
        ({"kind": "launch", "nth": 1, "code": 3}, '"code" must be a number from 507000'),
    ],
)
def test_a_fault_that_cannot_be_is_refused(start: Start, fault: dict[str, Any], complaint: str) -> None:
    assert complaint in start(fault).call(count_devices)


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("ASCEND_EMULATOR_COUNT", "none", "a whole number from 1 to 64"),
        ("ASCEND_EMULATOR_CHIP", "H100", "310P3"),
        ("ASCEND_EMULATOR_TIME_DILATION", "slow", "a number from 0.1 to 1000"),
        ("ASCEND_EMULATOR_CLOCK", "fast", "functional, skip, timing or both"),
    ],
)
def test_a_bad_setting_is_named(start: Start, variable: str, value: str, accepted: str) -> None:
    """As the library itself reads it: the Python side checks the same before."""
    text = start().call(initialize_with, variable, value)
    assert f'{variable}="{value}"' in text
    assert accepted in text


def initialize_with(variable: str, value: str) -> str:
    import ctypes
    import os

    from ascend_emulator.activation import library_folder

    libc = ctypes.CDLL(None)
    libc.setenv(variable.encode(), value.encode(), 1)
    os.environ[variable] = value
    library = ctypes.CDLL(str(library_folder() / "libascendcl.so"))
    library.aclGetRecentErrMsg.restype = ctypes.c_char_p
    assert library.aclInit(None) != 0
    return library.aclGetRecentErrMsg().decode()
