"""Streams run by themselves, in order, side by side, and wait for each other through events."""

from __future__ import annotations

import ctypes
import threading
import time

from ascend_emulator.pytest_plugin import Npu

from . import cann


def returns_before_the_device_is_done() -> tuple[bool, bool]:
    import torch

    torch.npu.set_device(0)
    gate = threading.Event()
    stream, event = cann.stream(), cann.create("aclrtCreateEventExWithFlag", 1)
    keep = cann.host_function(stream, gate.wait)
    cann.call("aclrtRecordEvent", event, stream)
    status = ctypes.c_int(-1)
    cann.call("aclrtQueryEventStatus", event, ctypes.byref(status))
    pending = status.value == 0
    gate.set()
    cann.call("aclrtSynchronizeEvent", event)
    cann.call("aclrtQueryEventStatus", event, ctypes.byref(status))
    cann.synchronize(stream)
    del keep
    return pending, status.value == 1


def test_work_is_queued_not_done_in_the_call(npu: Npu) -> None:
    assert npu.call(returns_before_the_device_is_done) == (True, True)


def two_streams_at_once() -> bool:
    """Each stream's function waits for the other's: only streams that run side by side finish."""
    cann.set_device()
    meeting = threading.Barrier(2)
    streams = [cann.stream(), cann.stream()]
    keep = [cann.host_function(stream, lambda: meeting.wait(10)) for stream in streams]
    for stream in streams:
        cann.synchronize(stream)
    del keep
    return not meeting.broken


def test_streams_overlap(npu: Npu) -> None:
    assert npu.call(two_streams_at_once)


def order_through_an_event(with_event: bool) -> list[str]:
    cann.set_device()
    gate, log = threading.Event(), []
    first, second = cann.stream(), cann.stream()
    event = cann.create("aclrtCreateEventExWithFlag", 1)

    def late() -> None:
        gate.wait()
        log.append("first")

    keep = [cann.host_function(first, late)]
    cann.call("aclrtRecordEvent", event, first)
    if with_event:
        cann.call("aclrtStreamWaitEvent", second, event)
    keep.append(cann.host_function(second, lambda: log.append("second")))
    if not with_event:
        cann.synchronize(second)
    gate.set()
    cann.synchronize(second)
    cann.synchronize(first)
    del keep
    return log


def test_a_stream_waits_for_an_event_of_another(npu: Npu) -> None:
    assert npu.call(order_through_an_event, with_event=True) == ["first", "second"]
    assert npu.call(order_through_an_event, with_event=False) == ["second", "first"]


def wait_sees_the_record_before_it() -> list[str]:
    """A wait belongs to the record issued before it: a later record of the same event does not hold it back."""
    cann.set_device()
    gate, log = threading.Event(), []
    first, second = cann.stream(), cann.stream()
    event = cann.create("aclrtCreateEventExWithFlag", 1)
    cann.call("aclrtRecordEvent", event, first)
    cann.call("aclrtStreamWaitEvent", second, event)
    keep = [cann.host_function(first, gate.wait)]
    cann.call("aclrtRecordEvent", event, first)
    keep.append(cann.host_function(second, lambda: log.append("second")))
    cann.synchronize(second)
    gate.set()
    cann.synchronize(first)
    del keep
    return log


def test_a_later_record_does_not_delay_an_earlier_wait(npu: Npu) -> None:
    assert npu.call(wait_sees_the_record_before_it) == ["second"]


def elapsed_around_a_pause() -> float:
    import torch

    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.npu.current_stream().synchronize()
    time.sleep(0.05)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def test_elapsed_time_is_that_between_the_records(npu: Npu) -> None:
    assert npu.call(elapsed_around_a_pause) >= 50


def synchronize_with_a_limit() -> int:
    cann.set_device()
    gate, stream = threading.Event(), cann.stream()
    keep = cann.host_function(stream, gate.wait)
    try:
        cann.call("aclrtSynchronizeStreamWithTimeout", stream, 20)
    except cann.AclError as error:
        return error.code
    finally:
        gate.set()
        cann.synchronize(stream)
        del keep
    return 0


def test_a_synchronization_gives_up_at_its_time_limit(npu: Npu) -> None:
    assert npu.call(synchronize_with_a_limit) == 507046


def callbacks_on_a_thread_of_the_program() -> list[str]:
    cann.set_device()
    log, stream = [], cann.stream()
    stop = threading.Event()
    thread_id: list[int] = []
    ready = threading.Event()

    def serve() -> None:
        thread_id.append(threading.get_ident())
        ready.set()
        while not stop.is_set():
            try:
                cann.call("aclrtProcessReport", 50)
            except cann.AclError as error:
                if error.code not in (107012, 507012):  # not subscribed yet, nothing arrived
                    raise

    server = threading.Thread(target=serve)
    server.start()
    ready.wait()
    cann.call("aclrtSubscribeReport", ctypes.c_uint64(thread_id[0]), stream)
    callback = cann.HOST_FUNCTION(lambda _: log.append("callback" if threading.get_ident() == thread_id[0] else "?"))
    cann.call("aclrtLaunchCallback", callback, None, 1, stream)
    keep = cann.host_function(stream, lambda: log.append("after"))
    cann.synchronize(stream)
    cann.call("aclrtUnSubscribeReport", ctypes.c_uint64(thread_id[0]), stream)
    stop.set()
    server.join()
    del keep
    return log


def test_a_blocking_callback_runs_on_the_subscribed_thread_and_holds_the_stream(npu: Npu) -> None:
    assert npu.call(callbacks_on_a_thread_of_the_program) == ["callback", "after"]


def many_small_copies(count: int) -> bool:
    """Thousands of ordered tasks from two threads: every one runs, each thread's in its order."""
    import torch

    device = [torch.zeros(1, dtype=torch.int64, device="npu") for _ in range(2)]

    def work(index: int) -> None:
        with torch.npu.stream(torch.npu.Stream()):
            for step in range(count):
                device[index].copy_(torch.tensor([step]), non_blocking=True)
            torch.npu.current_stream().synchronize()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [int(tensor.cpu()) for tensor in device] == [count - 1, count - 1]


def test_order_is_kept_under_load(npu: Npu) -> None:
    assert npu.call(many_small_copies, 2000)


def stream_that_is_gone() -> int:
    cann.set_device()
    stream = cann.stream()
    cann.call("aclrtDestroyStream", stream)
    try:
        cann.synchronize(stream)
    except cann.AclError as error:
        return error.code
    return 0


def test_a_destroyed_stream_is_refused(npu: Npu) -> None:
    assert npu.call(stream_that_is_gone) == 107003
