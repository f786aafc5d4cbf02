"""Captured graphs: replay, several streams, waits for the outside, task updates, and what capture forbids."""

from __future__ import annotations

import ctypes

import pytest
from ascend_emulator.pytest_plugin import Npu

from . import cann

SIZE = 16


def capture_of(stream: ctypes.c_void_p) -> None:
    cann.call("aclmdlRICaptureBegin", stream, cann.RELAXED)


def end_capture(stream: ctypes.c_void_p) -> ctypes.c_void_p:
    graph = ctypes.c_void_p()
    cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
    return graph


def replay(graph: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
    cann.call("aclmdlRIExecuteAsync", graph, stream)


def code_of(function: str, *arguments: object) -> int:
    try:
        cann.call(function, *arguments)
    except cann.AclError as error:
        return error.code
    return 0


def capture_then_replay() -> tuple[bytes, bytes]:
    cann.set_device()
    stream, source, target = cann.stream(), cann.malloc(SIZE), cann.malloc(SIZE)
    cann.fill(source, 1, SIZE, stream)
    cann.fill(target, 0, SIZE, stream)
    capture_of(stream)
    cann.copy(target, source, SIZE, stream)
    graph = end_capture(stream)
    cann.synchronize(stream)
    before = cann.read(target, 1)
    cann.fill(source, 7, SIZE, stream)
    replay(graph, stream)
    cann.synchronize(stream)
    return before, cann.read(target, 1)


def test_capture_runs_nothing_and_replay_reads_memory_anew(npu: Npu) -> None:
    assert npu.call(capture_then_replay) == (b"\0", b"\7")


def fork_and_join() -> bytes:
    cann.set_device()
    main, side = cann.stream(), cann.stream()
    fork, join = (cann.create("aclrtCreateEventExWithFlag", 1) for _ in range(2))
    first, second, third = (cann.malloc(SIZE) for _ in range(3))
    capture_of(main)
    cann.fill(first, 5, SIZE, main)
    cann.call("aclrtRecordEvent", fork, main)
    cann.call("aclrtStreamWaitEvent", side, fork)
    cann.copy(second, first, SIZE, side)
    cann.call("aclrtRecordEvent", join, side)
    cann.call("aclrtStreamWaitEvent", main, join)
    cann.copy(third, second, SIZE, main)
    graph = end_capture(main)
    replay(graph, main)
    cann.synchronize(main)
    return cann.read(third, 1)


def test_a_second_stream_joins_through_events(npu: Npu) -> None:
    assert npu.call(fork_and_join) == b"\5"


def forget_to_join() -> tuple[int, int]:
    cann.set_device()
    main, side, memory = cann.stream(), cann.stream(), cann.malloc(SIZE)
    fork = cann.create("aclrtCreateEventExWithFlag", 1)
    capture_of(main)
    cann.call("aclrtRecordEvent", fork, main)
    cann.call("aclrtStreamWaitEvent", side, fork)
    cann.fill(memory, 1, SIZE, side)
    graph = ctypes.c_void_p()
    code = code_of("aclmdlRICaptureEnd", main, ctypes.byref(graph))
    cann.fill(memory, 3, SIZE, side)  # both streams are usable again
    cann.synchronize(side)
    return code, cann.read(memory, 1)[0]


def test_a_stream_that_is_not_joined_back_spoils_the_capture(npu: Npu) -> None:
    assert npu.call(forget_to_join) == (107025, 3)


def update_a_group(update_first: bool) -> bytes:
    """The graph waits for an external value, then runs a task whose arguments change before each replay.

    This is torch_npu's way to give a replayed attention its new lengths. Either order of replay and update must give
    the new arguments: the replay waits on the device for the update's record.
    """
    cann.set_device()
    main, update, target, flag = cann.stream(), cann.stream(), cann.malloc(SIZE), cann.malloc(32)
    values = []
    cann.fill(flag, 0, 32, main)
    cann.synchronize(main)  # the update's stream, which nothing orders after this one, may write the flag at once
    capture_of(main)
    cann.call("aclrtValueWait", flag, ctypes.c_uint64(1), 1, main)
    cann.call("aclrtValueWrite", flag, ctypes.c_uint64(0), 0, main)
    cann.call("aclmdlRICaptureTaskGrpBegin", main)
    cann.fill(target, 1, SIZE, main)
    group = ctypes.c_void_p()
    cann.call("aclmdlRICaptureTaskGrpEnd", main, ctypes.byref(group))
    graph = end_capture(main)

    def give(value: int) -> None:
        cann.call("aclmdlRICaptureTaskUpdateBegin", update, group)
        cann.fill(target, value, SIZE, update)
        cann.call("aclmdlRICaptureTaskUpdateEnd", update)
        cann.call("aclrtValueWrite", flag, ctypes.c_uint64(1), 0, update)

    for value in (2, 3, 4):
        if update_first:
            give(value)
            replay(graph, main)
        else:
            replay(graph, main)
            give(value)
        cann.synchronize(main)
        values.append(cann.read(target, 1))
    return b"".join(values)


@pytest.mark.parametrize("update_first", [True, False], ids=["update-then-replay", "replay-then-update"])
def test_a_replay_uses_the_update_it_waited_for(npu: Npu, update_first: bool) -> None:
    assert npu.call(update_a_group, update_first) == b"\2\3\4"


def mismatched_update() -> tuple[int, int]:
    cann.set_device()
    main, update, first, second = cann.stream(), cann.stream(), cann.malloc(SIZE), cann.malloc(SIZE)
    capture_of(main)
    cann.call("aclmdlRICaptureTaskGrpBegin", main)
    cann.fill(first, 1, SIZE, main)
    group = ctypes.c_void_p()
    cann.call("aclmdlRICaptureTaskGrpEnd", main, ctypes.byref(group))
    end_capture(main)
    cann.call("aclmdlRICaptureTaskUpdateBegin", update, group)
    fewer = code_of("aclmdlRICaptureTaskUpdateEnd", update)
    cann.call("aclmdlRICaptureTaskUpdateBegin", update, group)
    cann.copy(first, second, SIZE, update)
    return fewer, code_of("aclmdlRICaptureTaskUpdateEnd", update)


def test_an_update_must_match_its_group(npu: Npu) -> None:
    assert npu.call(mismatched_update) == (107040, 107040)


def update_of_a_destroyed_graph() -> int:
    cann.set_device()
    main, update, memory = cann.stream(), cann.stream(), cann.malloc(SIZE)
    capture_of(main)
    cann.call("aclmdlRICaptureTaskGrpBegin", main)
    cann.fill(memory, 1, SIZE, main)
    group = ctypes.c_void_p()
    cann.call("aclmdlRICaptureTaskGrpEnd", main, ctypes.byref(group))
    cann.call("aclmdlRIDestroy", end_capture(main))
    return code_of("aclmdlRICaptureTaskUpdateBegin", update, group)


def test_a_group_goes_with_its_graph(npu: Npu) -> None:
    assert npu.call(update_of_a_destroyed_graph) == 107000


def illegal_calls() -> dict[str, int]:
    cann.set_device()
    stream, other, memory = cann.stream(), cann.stream(), cann.malloc(SIZE)
    outside = cann.create("aclrtCreateEventExWithFlag", 1)
    cann.call("aclrtRecordEvent", outside, other)
    size, host = ctypes.c_size_t(SIZE), ctypes.create_string_buffer(SIZE)
    cann.call("aclmdlRICaptureBegin", stream, 0)  # GLOBAL: forbids blocking calls of every thread
    codes = {
        "synchronize the stream": code_of("aclrtSynchronizeStream", stream),
        "synchronize the device": code_of("aclrtSynchronizeDevice"),
        "blocking copy": code_of("aclrtMemcpy", host, size, memory, size, cann.DEVICE_TO_HOST),
        "blocking fill": code_of("aclrtMemset", memory, size, 0, size),
        "query": code_of("aclrtStreamQuery", stream, ctypes.byref(ctypes.c_int())),
        "destroy": code_of("aclrtDestroyStream", stream),
        "capture again": code_of("aclmdlRICaptureBegin", stream, 0),
        "synchronize another stream": code_of("aclrtSynchronizeStream", other),
        "allocate": code_of("aclrtMalloc", ctypes.byref(ctypes.c_void_p()), size, 0),
        "wait for an event of outside": code_of("aclrtStreamWaitEvent", stream, outside),
    }
    codes["end"] = code_of("aclmdlRICaptureEnd", stream, ctypes.byref(ctypes.c_void_p()))
    codes["end again"] = code_of("aclmdlRICaptureEnd", stream, ctypes.byref(ctypes.c_void_p()))
    codes["default stream"] = code_of("aclmdlRICaptureBegin", None, 0)
    return codes


def test_what_a_capture_forbids_has_canns_code(npu: Npu) -> None:
    assert npu.call(illegal_calls) == {
        "synchronize the stream": 107027,
        "synchronize the device": 107027,
        "blocking copy": 107030,
        "blocking fill": 107030,
        "query": 107027,
        "destroy": 107027,
        "capture again": 107027,
        "synchronize another stream": 0,
        "allocate": 0,
        "wait for an event of outside": 107024,
        "end": 507903,
        "end again": 107029,
        "default stream": 207000,
    }


def graphs_until_refused(events_each: int) -> tuple[int, int]:
    """How many graphs with that many recorded events fit on the chip, and the code at the next one."""
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(SIZE)
    event = cann.create("aclrtCreateEventExWithFlag", 1)
    graphs: list[ctypes.c_void_p] = []
    code = 0
    while code == 0 and len(graphs) < 100:
        capture_of(stream)
        cann.fill(memory, 1, SIZE, stream)
        for _ in range(events_each):
            code = code or code_of("aclrtRecordEvent", event, stream)
        graphs.append(ctypes.c_void_p())
        cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graphs[-1]))
    for graph in graphs:
        cann.call("aclmdlRIDestroy", graph)
    capture_of(stream)  # what they held is free again
    cann.call("aclrtRecordEvent", event, stream)
    cann.call("aclmdlRIDestroy", end_capture(stream))
    return len(graphs) - 1, code


@pytest.mark.chips("310P3")
def test_graphs_exhaust_the_events_of_a_310p3(npu: Npu) -> None:
    assert npu.call(graphs_until_refused, 200) == (5, 207007)


def torch_graph() -> tuple[list[float], list[float], dict[str, object]]:
    import torch
    from ascend_emulator import reset_stats, stats

    torch.npu.set_compile_mode(jit_compile=False)
    value = torch.ones(4, device="npu")
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        result = value * 2 + 1
    reset_stats()
    graph.replay()
    first = result.cpu().tolist()
    value.fill_(5)
    graph.replay()
    return first, result.cpu().tolist(), stats()


def test_torch_npu_graphs_replay_and_are_counted(npu: Npu) -> None:
    first, second, stats = npu.call(torch_graph)
    assert first == [3.0] * 4
    assert second == [11.0] * 4
    assert stats["graphs"] == {"captures": 0, "replays": 2, "updates": 0}
    assert stats["graph_launches"] == {"aclnnAdds": 2, "aclnnMuls": 2}
