"""A chip that is lost, or an operator that fails, ends every wait: of the host and of streams, whatever blocks them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.worker import Worker

from . import cann
from .faulty import HANGS, LOSING_OPERATOR, LOST, answer, blocked, bounded, code_of, lose_the_chip, process

SIZE = 64


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with process(tmp_path_factory.mktemp("faults"), LOSING_OPERATOR, count=2) as worker:
        yield worker


@pytest.fixture
def doomed(shared: Worker) -> Iterator[Worker]:
    """A process on two chips, of which the first can be lost."""
    yield shared
    shared.call(cann.call, "aclrtResetDeviceForce", 0)


def test_a_chip_that_stops_answering_is_lost(tmp_path: Path) -> None:
    """The fault of that name, like which the others' operator behaves."""
    with process(tmp_path, {"kind": "chip_lost", "nth": 1}) as worker:
        assert worker.call(waits_on_a_lost_chip, "host function")["stream"] == LOST


def event() -> ctypes.c_void_p:
    return cann.create("aclrtCreateEventExWithFlag", 1)


def queried(mark: Any) -> int:
    return code_of("aclrtQueryEventStatus", mark, ctypes.byref(ctypes.c_int()))


def event_waits_after_a_record() -> dict[str, int]:
    cann.set_device()
    stream, mark = cann.stream(), event()
    gate = blocked(stream)  # it cannot come to what follows
    cann.call("aclrtRecordEvent", mark, stream)
    lose_the_chip()
    codes = {
        "query": queried(mark),
        "synchronize": answer("aclrtSynchronizeEvent", mark),
        "with a limit": answer("aclrtSynchronizeEventWithTimeout", mark, 1000),
    }
    # The stream comes to the record now and throws it away, which does not make what was ahead of it done.
    gate.set()
    cann.call("aclrtDestroyStreamForce", stream)
    return {**codes, "query at last": queried(mark)}


def test_an_event_that_a_lost_chip_will_not_reach(doomed: Worker) -> None:
    assert doomed.call(event_waits_after_a_record) == {
        "query": LOST,
        "synchronize": LOST,
        "with a limit": LOST,
        "query at last": LOST,
    }


def event_waits_after_a_refused_record() -> dict[str, int]:
    cann.set_device()
    stream, mark = cann.stream(), event()
    gate = blocked(stream)
    lose_the_chip()
    codes = {
        "record": code_of("aclrtRecordEvent", mark, stream),
        "synchronize": answer("aclrtSynchronizeEvent", mark),
        "with a limit": answer("aclrtSynchronizeEventWithTimeout", mark, 1000),
    }
    gate.set()
    return codes


def test_an_event_that_a_lost_chip_refused_to_record(doomed: Worker) -> None:
    assert doomed.call(event_waits_after_a_refused_record) == {
        "record": LOST,
        "synchronize": LOST,
        "with a limit": LOST,
    }


def torch_event_after_a_failure() -> list[str]:
    """What a server does that records an event a step for its copy of the tokens."""
    import torch

    value = torch.empty(4, device="npu")
    errors = []
    mark = torch.npu.Event()

    def synchronize() -> int:
        try:
            mark.synchronize()
        except RuntimeError as error:
            errors.append(str(error))
            return 1
        return 0

    def record() -> None:
        try:
            mark.record()
        except RuntimeError as error:
            errors.append(str(error))

    value.add_(1)
    try:
        torch.npu.synchronize()
    except RuntimeError as error:
        errors.append(str(error))
    record()
    assert bounded(synchronize) != HANGS
    return errors


@pytest.mark.parametrize("queue", ["0", "1"])
def test_torch_npus_event_after_a_failed_operator(tmp_path: Path, queue: str) -> None:
    fault = {"kind": "launch", "operator": "aclnnInplaceAdds", "nth": 1}
    with process(tmp_path, fault, TASK_QUEUE_ENABLE=queue) as worker:
        errors = worker.call(torch_event_after_a_failure)
    assert errors
    assert all("507015" in error for error in errors)


def block_by_a_host_function(stream: Any, keep: list[Any]) -> None:
    keep.append(blocked(stream))


def block_by_an_event(stream: Any, keep: list[Any]) -> None:
    other, mark = cann.stream(), event()
    block_by_a_host_function(other, keep)
    cann.call("aclrtRecordEvent", mark, other)
    cann.call("aclrtStreamWaitEvent", stream, mark)


def block_by_an_external_event(stream: Any, keep: list[Any]) -> None:
    external = cann.create("aclrtCreateEventExWithFlag", 0x20)
    cann.call("aclrtStreamWaitEvent", stream, external)


def block_by_a_value(stream: Any, keep: list[Any]) -> None:
    address = cann.malloc(SIZE)
    cann.fill(address, 0, SIZE, stream)
    cann.call("aclrtValueWait", address, ctypes.c_uint64(1), 1, stream)


def block_by_a_callback(stream: Any, keep: list[Any]) -> None:
    """Nobody serves the thread that the stream reports to."""
    callback = cann.HOST_FUNCTION(lambda _: None)
    keep.append(callback)
    cann.call("aclrtSubscribeReport", ctypes.c_uint64(threading.get_ident()), stream)
    cann.call("aclrtLaunchCallback", callback, None, 1, stream)


def block_by_a_full_queue(stream: Any, keep: list[Any]) -> None:
    block_by_a_value(stream, keep)
    address = cann.malloc(SIZE)
    for _ in range(1000):
        cann.fill(address, 0, SIZE, stream)


BLOCKS = {
    "host function": block_by_a_host_function,
    "event": block_by_an_event,
    "external event": block_by_an_external_event,
    "value": block_by_a_value,
    "callback": block_by_a_callback,
    "full queue": block_by_a_full_queue,
}


def waits_on_a_lost_chip(block: str) -> dict[str, int]:
    """Two threads wait while the chip is lost, and the rest asks afterwards."""
    cann.set_device()
    stream, keep = cann.stream(), []
    BLOCKS[block](stream, keep)
    host, device, size = ctypes.create_string_buffer(SIZE), cann.malloc(SIZE), ctypes.c_size_t(SIZE)
    codes: dict[str, int] = {}
    waits = {"stream": ("aclrtSynchronizeStream", stream), "device": ("aclrtSynchronizeDevice",)}
    threads = [
        threading.Thread(target=lambda name=name, call=call: codes.update({name: answer(*call)}))
        for name, call in waits.items()
    ]
    for thread in threads:
        thread.start()
    lose_the_chip()
    for thread in threads:
        thread.join()
    codes["stream again"] = answer("aclrtSynchronizeStream", stream)
    codes["with a limit"] = answer("aclrtSynchronizeStreamWithTimeout", stream, 1000)
    codes["query"] = answer("aclrtStreamQuery", stream, ctypes.byref(ctypes.c_int()))
    codes["copy"] = answer("aclrtMemcpy", host, size, device, size, cann.DEVICE_TO_HOST)
    codes["enqueue"] = answer("aclrtMemsetAsync", device, size, 0, size, stream)
    codes["destroy"] = answer("aclrtDestroyStream", stream)
    codes["reset"] = answer("aclrtResetDeviceForce", 0)
    for gate in keep:
        if isinstance(gate, threading.Event):
            gate.set()
    return codes


@pytest.mark.parametrize("block", BLOCKS)
def test_every_wait_ends(doomed: Worker, block: str) -> None:
    assert doomed.call(waits_on_a_lost_chip, block) == {
        "stream": LOST,
        "device": LOST,
        "stream again": LOST,
        "with a limit": LOST,
        "query": LOST,
        "copy": LOST,
        "enqueue": LOST,
        "destroy": 0,
        "reset": 0,
    }


def wait_for_a_record_of_a_lost_chip() -> int:
    """A stream of a healthy chip waits for one of the other."""
    cann.set_device(0)
    first, mark = cann.stream(), event()
    gate = blocked(first)
    cann.call("aclrtRecordEvent", mark, first)
    cann.set_device(1)
    second = cann.stream()
    cann.call("aclrtStreamWaitEvent", second, mark)
    cann.set_device(0)
    lose_the_chip()
    code = answer("aclrtSynchronizeStream", second)
    gate.set()
    return code


def test_a_healthy_chip_does_not_wait_for_a_lost_one(doomed: Worker) -> None:
    assert doomed.call(wait_for_a_record_of_a_lost_chip) == 0


def drop_a_record(how: str) -> dict[str, int]:
    """A record that will never be made, though its chip is well."""
    cann.set_device()
    stream, mark, memory = cann.stream(), event(), cann.malloc(SIZE)
    if how == "destroyed stream":
        cann.call("aclrtValueWait", memory, ctypes.c_uint64(1), 1, stream)
        cann.call("aclrtRecordEvent", mark, stream)
        cann.call("aclrtDestroyStreamForce", stream)
    else:
        cann.call("aclmdlRICaptureBegin", stream, cann.RELAXED)
        cann.call("aclmdlRICaptureTaskGrpBegin", stream)
        cann.fill(memory, 1, SIZE, stream)
        group, graph = ctypes.c_void_p(), ctypes.c_void_p()
        cann.call("aclmdlRICaptureTaskGrpEnd", stream, ctypes.byref(group))
        cann.call("aclmdlRICaptureEnd", stream, ctypes.byref(graph))
        cann.call("aclmdlRICaptureTaskUpdateBegin", stream, group)
        cann.call("aclrtRecordEvent", mark, stream)
        assert code_of("aclmdlRICaptureTaskUpdateEnd", stream) == 107040
    return {
        "synchronize": answer("aclrtSynchronizeEvent", mark),
        "wait": answer("aclrtStreamWaitEvent", cann.stream(), mark),
        "time": code_of("aclrtEventGetTimestamp", mark, ctypes.byref(ctypes.c_uint64())),
    }


@pytest.mark.parametrize("how", ["destroyed stream", "refused update"])
def test_a_dropped_record_holds_nobody(doomed: Worker, how: str) -> None:
    assert doomed.call(drop_a_record, how) == {"synchronize": 0, "wait": 0, "time": 107006}
