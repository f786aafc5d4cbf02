"""A stream has 1,792 task slots: the host waits for one, as on hardware (hw-native-sys/simpler#1853)."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from ascend_emulator.launcher import emulate
from ascend_emulator.worker import Worker

from . import cann
from .faulty import PATIENCE_S, answer

SIZE = 64
SLOTS = 1792
GIB = 1 << 30
TURNS_HELD = 10


@contextmanager
def process(clock: str = "functional", **environment: str) -> Iterator[Worker]:
    with ExitStack() as stack:
        machine = stack.enter_context(emulate(chip="310P3", count=1, clock=clock))
        worker = Worker({**machine.environment, **environment})
        stack.callback(worker.close)
        yield worker


def enqueue_behind_a_wait(wanted: int) -> tuple[int, int, int]:
    """How many tasks a thread enqueues behind a wait before it is held, and in the end; and the stream's answer."""
    cann.set_device()
    stream, other = cann.stream(), cann.stream()
    flag, memory = cann.malloc(SIZE), cann.malloc(SIZE)
    cann.fill(flag, 0, SIZE, stream)
    cann.synchronize(stream)
    cann.call("aclrtValueWait", flag, ctypes.c_uint64(1), 1, stream)
    done = [0]

    def enqueue() -> None:
        cann.set_device()
        for _ in range(wanted):
            cann.fill(memory, 1, SIZE, stream)
            done[0] += 1

    thread = threading.Thread(target=enqueue)
    thread.start()
    # The thread is held once it makes no step while this one makes many, in turn after turn: on a busy machine one may
    # pass before it has had its share of the CPU.
    end, held_at, turns = time.monotonic() + PATIENCE_S, -1, 0
    while turns < TURNS_HELD and time.monotonic() < end:
        turns = turns + 1 if held_at == done[0] else 0
        held_at = done[0]
        for _ in range(500):
            cann.fill(memory, 2, SIZE, other)
            cann.synchronize(other)
    cann.call("aclrtValueWrite", flag, ctypes.c_uint64(1), 0, other)
    thread.join()
    return held_at, done[0], answer("aclrtSynchronizeStream", stream)


@pytest.mark.parametrize("slots", [SLOTS, 2500])
def test_the_host_is_held_when_all_slots_are_taken(slots: int) -> None:
    environment = {} if slots == SLOTS else {"ASCEND_EMULATOR_STREAM_SLOTS": str(slots)}
    with process(**environment) as worker:
        assert worker.call(enqueue_behind_a_wait, 4000) == (slots - 1, 4000, 0)  # the wait has a slot too


def capture_many(tasks: int) -> int:
    cann.set_device()
    stream, memory, graph = cann.stream(), cann.malloc(SIZE), ctypes.c_void_p()
    cann.call("aclmdlRICaptureBegin", stream, cann.RELAXED)
    for _ in range(tasks):
        cann.fill(memory, 1, SIZE, stream)
    cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
    cann.call("aclmdlRIExecuteAsync", graph, stream)
    return answer("aclrtSynchronizeStream", stream)


def test_a_capture_takes_no_slots() -> None:
    with process() as worker:
        assert worker.call(capture_many, 2 * SLOTS) == 0


def a_task_queues_from_its_own_stream(tasks: int) -> int:
    """The program's function on a stream adds to that stream: it cannot wait for itself."""
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(SIZE)

    def add() -> None:
        for _ in range(tasks):
            cann.fill(memory, 1, SIZE, stream)

    keep = cann.host_function(stream, add)
    code = answer("aclrtSynchronizeStream", stream)
    del keep
    return code


def test_a_stream_does_not_wait_for_itself() -> None:
    with process() as worker:
        assert worker.call(a_task_queues_from_its_own_stream, 2 * SLOTS) == 0


def first_of_many(slots: int) -> bool:
    """Whether the first task has ended in modelled time when one more than the slots was accepted."""
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(8 * GIB)
    first = cann.create("aclrtCreateEventExWithFlag", 1)
    cann.copy(memory, memory, 4 * GIB, stream)
    cann.call("aclrtRecordEvent", first, stream)
    for _ in range(slots):
        cann.copy(memory, memory, 4 * GIB, stream)
    status = ctypes.c_int()
    cann.call("aclrtQueryEventStatus", first, ctypes.byref(status))
    return status.value == 1


def test_a_slot_is_taken_for_the_modeled_time_of_its_task() -> None:
    with process(clock="timing", ASCEND_EMULATOR_STREAM_SLOTS="16") as worker:
        assert worker.call(first_of_many, 16)
