"""Captures that are queried while they end, reset in the middle, refused an operator, or replayed too early."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest
from ascend_emulator.pytest_plugin import Npu

from . import cann
from .faulty import answer, code_of

SIZE = 64
GLOBAL = 0


def begin(stream: Any, mode: int = cann.RELAXED) -> None:
    cann.call("aclmdlRICaptureBegin", stream, mode)


def end_code(stream: Any) -> int:
    return code_of("aclmdlRICaptureEnd", stream, ctypes.byref(ctypes.c_void_p()))


def copy_code() -> int:
    size = ctypes.c_size_t(SIZE)
    host, device = ctypes.create_string_buffer(SIZE), cann.malloc(SIZE)
    return code_of("aclrtMemcpy", device, size, host, size, cann.HOST_TO_DEVICE)


def query_while_captures_end(captures: int) -> set[int]:
    """Codes of the queries of two threads. What they may follow is freed again and again: a sanitizer build sees it."""
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(SIZE)
    codes: set[int] = set()
    stop = threading.Event()

    def query() -> None:
        cann.set_device()
        status = ctypes.c_int()
        while not stop.is_set():
            codes.add(code_of("aclrtSynchronizeDevice"))
            codes.add(code_of("aclrtStreamQuery", stream, ctypes.byref(status)))

    threads = [threading.Thread(target=query) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(captures):
        begin(stream)
        cann.fill(memory, 1, SIZE, stream)
        graph = ctypes.c_void_p()
        cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
        cann.call("aclmdlRIDestroy", graph)
    stop.set()
    for thread in threads:
        thread.join()
    return codes


def test_a_capture_ends_while_others_ask_for_it(npu: Npu) -> None:
    assert npu.call(query_while_captures_end, 2000) <= {0, 107027}


def reset_in_the_middle(mode: int) -> dict[str, int]:
    cann.set_device()
    main, side = cann.stream(), cann.stream()
    fork = cann.create("aclrtCreateEventExWithFlag", 1)
    begin(main, mode)
    cann.call("aclrtRecordEvent", fork, main)
    cann.call("aclrtStreamWaitEvent", side, fork)
    cann.call("aclrtResetDeviceForce", 0)
    cann.set_device()
    codes = {"copy": copy_code(), "end": end_code(main), "wait": code_of("aclrtStreamWaitEvent", cann.stream(), fork)}
    again = cann.stream()
    begin(again, GLOBAL)
    codes["copy while the next is captured"] = copy_code()
    codes["end of the next"] = end_code(again)
    codes["copy after it"] = copy_code()
    return codes


@pytest.mark.parametrize("mode", [GLOBAL, cann.RELAXED])
def test_a_reset_ends_the_captures_of_the_device(npu: Npu, mode: int) -> None:
    assert npu.call(reset_in_the_middle, mode) == {
        "copy": 0,
        "end": 107003,
        "wait": 0,
        "copy while the next is captured": 107030,
        "end of the next": 0,
        "copy after it": 0,
    }


def replay_after_a_reset() -> int:
    """The graph goes with the memory that it writes."""
    cann.set_device()
    stream, memory, graph = cann.stream(), cann.malloc(SIZE), ctypes.c_void_p()
    begin(stream)
    cann.fill(memory, 1, SIZE, stream)
    cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
    cann.call("aclrtResetDeviceForce", 0)
    cann.set_device()
    return code_of("aclmdlRIExecuteAsync", graph, cann.stream())


def test_a_reset_takes_the_graphs_of_the_device(npu: Npu) -> None:
    assert npu.call(replay_after_a_reset) == 107000


def reset_by_another_thread() -> int:
    """The capture's mode forbids blocking calls of the thread that began it: only while it exists."""
    cann.set_device()
    begin(cann.stream(), 1)  # THREAD_LOCAL
    thread = threading.Thread(target=lambda: cann.call("aclrtResetDeviceForce", 0))
    thread.start()
    thread.join()
    cann.set_device()
    return copy_code()


def test_another_thread_may_reset_it(npu: Npu) -> None:
    assert npu.call(reset_by_another_thread) == 0


def use_before_the_end() -> dict[str, int]:
    cann.set_device()
    stream, other, memory = cann.stream(), cann.stream(), cann.malloc(SIZE)
    begin(stream)
    cann.fill(memory, 1, SIZE, stream)
    graph, group = ctypes.c_void_p(), ctypes.c_void_p()
    cann.call("aclmdlRICaptureGetInfo", stream, ctypes.byref(ctypes.c_int()), ctypes.byref(graph))
    cann.call("aclmdlRICaptureTaskGrpBegin", stream)
    cann.fill(memory, 2, SIZE, stream)
    cann.call("aclmdlRICaptureTaskGrpEnd", stream, ctypes.byref(group))
    codes = {
        "replay": code_of("aclmdlRIExecuteAsync", graph, other),
        "update": code_of("aclmdlRICaptureTaskUpdateBegin", other, group),
        "print": code_of("aclmdlRIDebugJsonPrint", graph, b"/dev/null", 0),
        "destroy": code_of("aclmdlRIDestroy", graph),
        "id": code_of("aclmdlRIGetId", graph, ctypes.byref(ctypes.c_uint32())),
    }
    cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
    codes["replay after the end"] = code_of("aclmdlRIExecuteAsync", graph, other)
    codes["synchronize"] = answer("aclrtSynchronizeStream", other)
    return codes


def test_a_graph_is_used_once_its_capture_has_ended(npu: Npu) -> None:
    assert npu.call(use_before_the_end) == {
        "replay": 107026,
        "update": 107026,
        "print": 107026,
        "destroy": 107026,
        "id": 0,
        "replay after the end": 0,
        "synchronize": 0,
    }


def update_of_a_stream_that_goes() -> tuple[int, int]:
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(SIZE)
    begin(stream)
    cann.call("aclmdlRICaptureTaskGrpBegin", stream)
    cann.fill(memory, 1, SIZE, stream)
    graph, group = ctypes.c_void_p(), ctypes.c_void_p()
    cann.call("aclmdlRICaptureTaskGrpEnd", stream, ctypes.byref(group))
    cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
    update = cann.stream()
    cann.call("aclmdlRICaptureTaskUpdateBegin", update, group)
    again = code_of("aclmdlRICaptureTaskUpdateBegin", update, group)
    cann.call("aclrtDestroyStream", update)
    return again, code_of("aclmdlRICaptureTaskUpdateEnd", update)


def test_an_update_ends_with_its_stream(npu: Npu) -> None:
    assert npu.call(update_of_a_stream_that_goes) == (107033, 107003)


def capture_from_two_threads(attempts: int) -> set[tuple[int, ...]]:
    """Both begin a capture of one stream at once: one of them has it."""
    cann.set_device()
    stream = cann.stream()
    outcomes = set()
    for _ in range(attempts):
        meeting, codes = threading.Barrier(2), []

        def work(meeting: threading.Barrier = meeting, codes: list[int] = codes) -> None:
            cann.set_device()
            meeting.wait()
            codes.append(code_of("aclmdlRICaptureBegin", stream, cann.RELAXED))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcomes.add(tuple(sorted(code != 0 for code in codes)))
        end_code(stream)
    return outcomes


def test_one_of_two_threads_captures_a_stream(npu: Npu) -> None:
    assert npu.call(capture_from_two_threads, 200) == {(False, True)}
