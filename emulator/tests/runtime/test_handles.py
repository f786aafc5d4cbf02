"""Handles that were never handed out, or were given back, and sizes that cannot be: CANN's codes, never a signal."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest
from ascend_emulator.pytest_plugin import Npu

from . import cann
from .faulty import answer, bounded, code_of

SIZE = 4096
MIB = 1 << 20
BIG = (1 << 64) - 4096
NULL, INVALID, NO_CONTEXT, NO_STREAM, OUT_OF_MEMORY = 100000, 107000, 107002, 107003, 207001


class Location(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint32), ("type", ctypes.c_int)]


class Properties(ctypes.Structure):
    _fields_ = [
        ("handle_type", ctypes.c_int),
        ("allocation_type", ctypes.c_int),
        ("attribute", ctypes.c_int),
        ("location", Location),
        ("reserved", ctypes.c_uint64),
    ]


def physical(size_bytes: int) -> ctypes.c_void_p:
    properties = Properties(location=Location(0, 1))
    return cann.create("aclrtMallocPhysical", ctypes.c_size_t(size_bytes), ctypes.byref(properties), ctypes.c_uint64(0))


def reserve(size_bytes: int, alignment: int = 0) -> ctypes.c_void_p:
    arguments = ctypes.c_size_t(size_bytes), ctypes.c_size_t(alignment), None, ctypes.c_uint64(0)
    return cann.create("aclrtReserveMemAddress", *arguments)


def refusal(action: Any, *arguments: Any) -> int:
    try:
        action(*arguments)
    except cann.AclError as error:
        return error.code
    return 0


def impossible_sizes() -> dict[str, int]:
    cann.set_device()
    memory, size = cann.malloc(2 * MIB), ctypes.c_size_t(BIG)
    most = ctypes.c_size_t((1 << 64) - 1)
    inside = ctypes.c_void_p(memory.value + SIZE)
    codes = {
        "fill": code_of("aclrtMemset", memory, most, 1, size),
        "fill in a stream": code_of("aclrtMemsetAsync", memory, most, 1, size, None),
        "copy": code_of("aclrtMemcpy", inside, most, memory, size, cann.DEVICE_TO_DEVICE),
        "host memory": code_of("aclrtMallocHost", ctypes.byref(ctypes.c_void_p()), most),
        "alignment": refusal(reserve, 2 * MIB, (1 << 63) + 1),
    }
    for exponent in (64, 63):
        for change in (-1, -4096, 1 - 2 * MIB, 5):
            wanted = ((1 << exponent) + change) % (1 << 64)
            if wanted < 1 << 62:
                continue
            codes[f"allocate {wanted:#x}"] = refusal(cann.malloc, wanted)
            codes[f"physical {wanted:#x}"] = refusal(physical, wanted)
            codes[f"reserve {wanted:#x}"] = refusal(reserve, wanted)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cann.call("aclrtGetMemInfo", 0, ctypes.byref(free), ctypes.byref(total))
    assert total.value - free.value < 100 * MIB  # nothing of it was charged
    return codes


def test_sizes_near_the_end_of_64_bits(npu: Npu) -> None:
    codes = npu.call(impossible_sizes)
    exact = {"fill": INVALID, "fill in a stream": INVALID, "copy": INVALID, "alignment": NULL}
    assert {name: codes[name] for name in exact} == exact
    assert {code for name, code in codes.items() if name not in exact} == {OUT_OF_MEMORY}


def mapping_rules() -> dict[str, int]:
    cann.set_device()
    memory, area = physical(4 * MIB), reserve(16 * MIB)
    zero, flags = ctypes.c_size_t(0), ctypes.c_uint64(0)

    def map_code(at: int, size_bytes: int, offset: int = 0) -> int:
        address = ctypes.c_void_p(area.value + at)
        return code_of("aclrtMapMem", address, ctypes.c_size_t(size_bytes), ctypes.c_size_t(offset), memory, flags)

    outside = ctypes.c_size_t(BIG)
    codes = {
        "not a page": map_code(100, 4096),
        "half a page": map_code(0, 100),
        "nothing": map_code(0, 0),
        "offset wraps": map_code(0, 4096, BIG),
        "size wraps": code_of("aclrtMapMem", area, outside, zero, memory, flags),
        "beyond the range": map_code(16 * MIB, 4096),
        "memory that does not exist": code_of("aclrtMapMem", area, ctypes.c_size_t(4096), zero, area, flags),
        "right": map_code(4 * MIB, 4 * MIB),
        "over its end": map_code(6 * MIB, 4 * MIB),
        "over its start": map_code(2 * MIB, 4 * MIB),
        "inside it": map_code(5 * MIB, MIB),
        "beside it": map_code(0, 4 * MIB),
    }
    codes["copy into what was refused"] = code_of(
        "aclrtMemset", ctypes.c_void_p(area.value + 8 * MIB), ctypes.c_size_t(SIZE), 1, ctypes.c_size_t(SIZE)
    )
    codes["release while mapped"] = code_of("aclrtReleaseMemAddress", area)
    codes["free while mapped"] = code_of("aclrtFreePhysical", memory)
    for at in (0, 4 * MIB):
        cann.call("aclrtUnmapMem", ctypes.c_void_p(area.value + at))
    codes["release"] = code_of("aclrtReleaseMemAddress", area)
    codes["free"] = code_of("aclrtFreePhysical", memory)
    codes["free again"] = code_of("aclrtFreePhysical", memory)
    return codes


def test_what_may_be_mapped_where(npu: Npu) -> None:
    codes = npu.call(mapping_rules)
    allowed = {"right", "beside it", "release", "free"}
    assert {name for name, code in codes.items() if code == 0} == allowed
    assert codes["memory that does not exist"] == codes["free again"] == 107017


def mapped_neighbours_survive() -> int:
    """A range that is still mapped is nobody else's: its addresses went to the next allocation, before."""
    cann.set_device()
    memory, area = physical(4 * MIB), reserve(4 * MIB)
    cann.call("aclrtMapMem", area, ctypes.c_size_t(4 * MIB), ctypes.c_size_t(0), memory, ctypes.c_uint64(0))
    code_of("aclrtReleaseMemAddress", area)
    other = cann.malloc(4 * MIB)
    cann.call("aclrtUnmapMem", area)
    size = ctypes.c_size_t(4 * MIB)
    return code_of("aclrtMemset", other, size, 1, size)


def test_an_allocation_has_its_addresses_to_itself(npu: Npu) -> None:
    assert npu.call(mapped_neighbours_survive) == 0


def keys_that_were_never_exported() -> dict[str, int]:
    import os

    cann.set_device()
    descriptor = os.memfd_create("short")
    os.ftruncate(descriptor, SIZE)
    keys = {
        "text": b"key",
        "beyond the file": f"{os.getpid()}:{descriptor}:0:{SIZE * 2:x}:0".encode(),
        "wraps": f"{os.getpid()}:{descriptor}:fff:{BIG:x}:0".encode(),
    }
    return {
        name: code_of("aclrtIpcMemImportByKey", ctypes.byref(ctypes.c_void_p()), key, ctypes.c_uint64(0))
        for name, key in keys.items()
    }


def test_a_key_that_names_nothing(npu: Npu) -> None:
    assert set(npu.call(keys_that_were_never_exported).values()) == {INVALID}


def contexts() -> dict[str, int]:
    cann.set_device()
    first, primary = ctypes.c_void_p(), ctypes.c_void_p()
    cann.call("aclrtGetCurrentContext", ctypes.byref(primary))
    cann.call("aclrtCreateContext", ctypes.byref(first), 0)
    taken, destroyed, codes = threading.Event(), threading.Event(), {}

    def elsewhere() -> None:
        cann.call("aclrtSetCurrentContext", first)
        taken.set()
        destroyed.wait()
        codes["allocate in it"] = refusal(cann.malloc, SIZE)
        codes["create a stream in it"] = refusal(cann.stream)
        cann.set_device()
        codes["after another"] = refusal(cann.malloc, SIZE)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    taken.wait()
    cann.call("aclrtDestroyContext", first)
    destroyed.set()
    thread.join()
    codes["here"] = refusal(cann.malloc, SIZE)
    codes["set"] = code_of("aclrtSetCurrentContext", first)
    codes["destroy again"] = code_of("aclrtDestroyContext", first)
    codes["destroy the primary"] = code_of("aclrtDestroyContext", primary)
    codes["what is none"] = code_of("aclrtSetCurrentContext", ctypes.c_void_p(0x1234))
    codes["null"] = code_of("aclrtSetCurrentContext", None)
    cann.set_device()
    return codes


def test_a_destroyed_context_is_refused_by_every_thread(npu: Npu) -> None:
    assert npu.call(contexts) == {
        "allocate in it": NO_CONTEXT,
        "create a stream in it": NO_CONTEXT,
        "after another": 0,
        "here": NO_CONTEXT,
        "set": NO_CONTEXT,
        "destroy again": NO_CONTEXT,
        "destroy the primary": INVALID,
        "what is none": NO_CONTEXT,
        "null": NULL,
    }


def streams_that_are_none() -> dict[str, int]:
    cann.set_device()
    gone = cann.stream()
    cann.call("aclrtDestroyStream", gone)
    mark = cann.create("aclrtCreateEventExWithFlag", 1)
    handles = {"gone": gone, "wild": ctypes.c_void_p(0x1234), "event": mark, "memory": cann.malloc(SIZE)}
    calls = {
        "synchronize": lambda handle: ("aclrtSynchronizeStream", handle),
        "record": lambda handle: ("aclrtRecordEvent", mark, handle),
        "destroy": lambda handle: ("aclrtDestroyStream", handle),
        "capture": lambda handle: ("aclmdlRICaptureBegin", handle, cann.RELAXED),
    }
    return {
        f"{action} {name}": code_of(*call(handle)) for name, handle in handles.items() for action, call in calls.items()
    }


def test_what_is_no_stream_is_refused(npu: Npu) -> None:
    assert set(npu.call(streams_that_are_none).values()) == {NO_STREAM}


def nulls() -> dict[str, int]:
    cann.set_device()
    size = ctypes.c_size_t(SIZE)
    mark, memory, host = cann.create("aclrtCreateEvent"), cann.malloc(SIZE), ctypes.create_string_buffer(SIZE)
    calls: list[tuple[Any, ...]] = [
        ("aclrtMalloc", None, size, 0),
        ("aclrtCreateStream", None),
        ("aclrtCreateEvent", None),
        ("aclrtQueryEventStatus", mark, None),
        ("aclrtRecordEvent", None, None),
        ("aclrtDestroyEvent", None),
        ("aclrtDestroyStream", None),
        ("aclrtFree", None),
        ("aclrtMemcpy", None, size, host, size, cann.HOST_TO_DEVICE),
        ("aclrtMemcpy", memory, size, None, size, cann.HOST_TO_DEVICE),
        ("aclrtGetMemInfo", 0, None, None),
        ("aclrtStreamQuery", None, None),
        ("aclmdlRIDestroy", None),
        ("aclrtEventElapsedTime", None, mark, mark),
        ("aclrtMallocPhysical", None, size, None, ctypes.c_uint64(0)),
        ("aclrtGetDevice", None),
    ]
    return {f"{index} {call[0]}": code_of(*call) for index, call in enumerate(calls)}


def test_null_has_canns_code(npu: Npu) -> None:
    assert set(npu.call(nulls).values()) == {NULL}


def callback_whose_thread_leaves() -> tuple[int, list[str]]:
    """The stream goes on, as it does for a callback that comes after the thread has left."""
    cann.set_device()
    stream, log = cann.stream(), []
    thread = ctypes.c_uint64(threading.get_ident())
    callback = cann.HOST_FUNCTION(lambda _: log.append("called"))
    reached = threading.Event()
    keep = cann.host_function(stream, reached.set)
    cann.call("aclrtSubscribeReport", thread, stream)
    cann.call("aclrtLaunchCallback", callback, None, 1, stream)
    after = cann.host_function(stream, lambda: log.append("after"))
    reached.wait()
    cann.call("aclrtUnSubscribeReport", thread, stream)
    code = answer("aclrtSynchronizeStream", stream)
    del keep, after
    return code, log


def test_a_callback_does_not_outlive_its_subscription(npu: Npu) -> None:
    assert npu.call(callback_whose_thread_leaves) == (0, ["after"])


def two_threads_destroy(attempts: int) -> set[tuple[int, ...]]:
    cann.set_device()
    outcomes = set()
    for _ in range(attempts):
        stream, meeting, codes = cann.stream(), threading.Barrier(2), []

        def work(stream: Any = stream, meeting: threading.Barrier = meeting, codes: list[int] = codes) -> int:
            meeting.wait()
            codes.append(code_of("aclrtDestroyStream", stream))
            return 0

        second = threading.Thread(target=lambda work=work: bounded(work))
        second.start()
        bounded(work)
        second.join()
        outcomes.add(tuple(sorted(codes)))
    return outcomes


@pytest.mark.slow
def test_a_stream_is_destroyed_once(npu: Npu) -> None:
    assert npu.call(two_threads_destroy, 200) <= {(0, 0), (0, NO_STREAM)}
