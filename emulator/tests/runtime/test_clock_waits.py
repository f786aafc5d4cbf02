"""Modelled time across waits: a wait ends when what it waits for happened, whatever happened since."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ascend_emulator.launcher import emulate
from ascend_emulator.worker import Worker

from . import cann
from .test_clock import GIB, HEAD_START_BYTES, Bench

GEQ, EQ = 0, 1


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with emulate(chip="310P3", count=1, clock="timing") as machine:
        process = Worker({**machine.environment, "TASK_QUEUE_ENABLE": "0"})
        yield process
        process.close()


def between_ms(start: Any, end: Any) -> float:
    """As soon as both streams have come to their marks, which they do before the modelled time."""
    elapsed = ctypes.c_float()
    while cann.library().aclrtEventElapsedTime(ctypes.byref(elapsed), start, end):
        time.sleep(0.001)
    return elapsed.value


def wait_while_the_event_moves_on() -> tuple[float, float, float]:
    """Marks of the first record, of the stream that waited for it, and of the second record, in ms."""
    with Bench() as bench:
        first, second = cann.stream(), cann.stream()
        gate = threading.Event()
        bench.head_start(first)
        start = bench.mark(first)
        bench.copies(first, 1, GIB)
        event = bench.mark(first)
        reached = bench.mark(first)
        keep = cann.host_function(second, gate.wait)
        bench.wait(second, event)
        passed = bench.mark(second)
        bench.copies(first, 10, HEAD_START_BYTES)
        cann.call("aclrtRecordEvent", event, first)
        again_ms = between_ms(start, event)  # the first stream has come to the second record
        gate.set()
        passed_ms = between_ms(start, passed)
        del keep
        return between_ms(start, reached), passed_ms, again_ms


def test_a_later_record_does_not_move_an_earlier_wait(worker: Worker) -> None:
    reached, passed, again = worker.call(wait_while_the_event_moves_on)
    assert reached <= passed < again / 2


def wait_for_values(condition: int, writes: list[int], value: int) -> tuple[list[float], float]:
    """When each value was written, and when the stream that waits for one passed, in ms."""
    with Bench() as bench:
        first, second = cann.stream(), cann.stream()
        flag = cann.malloc(64)
        cann.call("aclrtMemset", flag, ctypes.c_size_t(64), 0, ctypes.c_size_t(64))
        bench.head_start(first)
        start = bench.mark(first)
        marks = []
        for written in writes:
            bench.copies(first, 2, HEAD_START_BYTES)
            cann.call("aclrtValueWrite", flag, ctypes.c_uint64(written), 0, first)
            marks.append(bench.mark(first))
        times = [between_ms(start, mark) for mark in marks]
        cann.call("aclrtValueWait", flag, ctypes.c_uint64(value), condition, second)
        passed = between_ms(start, bench.mark(second))
        cann.call("aclrtFree", flag)
        return times, passed


@pytest.mark.parametrize(
    ("condition", "writes", "value", "nth"),
    [
        (EQ, [1], 1, 0),
        (GEQ, [1, 2, 3], 2, 1),
        (GEQ, [1, 2, 3], 1, 0),
        (EQ, [1, 0, 1], 1, 2),
        (EQ, [1, 1, 1], 1, 0),
    ],
)
def test_a_value_is_there_from_the_time_it_was_written(
    worker: Worker, condition: int, writes: list[int], value: int, nth: int
) -> None:
    times, passed = worker.call(wait_for_values, condition, writes, value)
    assert passed == pytest.approx(times[nth], rel=1e-3)


def value_in_memory_of_another_owner() -> tuple[float, float]:
    """The same address, allocated anew and set by a fill: the write of before says nothing."""
    with Bench() as bench:
        first, second = cann.stream(), cann.stream()
        flag = cann.malloc(64)
        bench.head_start(first)
        bench.copies(first, 4, HEAD_START_BYTES)
        ones = ctypes.c_uint64(0x0101010101010101)
        cann.call("aclrtValueWrite", flag, ones, 0, first)
        written = bench.mark(first)
        start = bench.mark(second)
        late = between_ms(start, written)
        cann.call("aclrtFree", flag)
        again = cann.malloc(64)
        assert again.value == flag.value
        cann.call("aclrtMemset", again, ctypes.c_size_t(64), 1, ctypes.c_size_t(64))
        cann.call("aclrtValueWait", again, ones, EQ, second)
        passed = between_ms(start, bench.mark(second))
        cann.call("aclrtFree", again)
        return passed, late


def test_freed_memory_is_forgotten(worker: Worker) -> None:
    passed, late = worker.call(value_in_memory_of_another_owner)
    assert passed < late / 2
