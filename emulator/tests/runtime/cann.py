"""libascendcl called directly, for what torch_npu does not expose: every failed call raises its code and text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
RELAXED = 2  # ACL_MODEL_RI_CAPTURE_MODE_RELAXED
HUGE_FIRST = 0
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3


class AclError(RuntimeError):
    """CANN refused a call."""

    def __init__(self, function: str, code: int, message: str) -> None:
        super().__init__(function, code, message)
        self.code = code


def library() -> ctypes.CDLL:
    """The library that torch_npu itself uses; importing it is what loads the emulated one."""
    import torch_npu  # noqa: F401
    from ascend_emulator import activation

    return next(loaded for loaded in activation.loaded() if hasattr(loaded, "aclrtMalloc"))


def hccl() -> ctypes.CDLL:
    """Its functions answer with HCCL's results, which call() does not know."""
    library()
    from ascend_emulator import activation

    return next(loaded for loaded in activation.loaded() if hasattr(loaded, "HcclAllReduce"))


def call(function: str, *arguments: Any) -> None:
    runtime = library()
    code = getattr(runtime, function)(*arguments)
    if code:
        runtime.aclGetRecentErrMsg.restype = ctypes.c_char_p
        raise AclError(function, code, (runtime.aclGetRecentErrMsg() or b"").decode())


def create(function: str, *arguments: Any) -> ctypes.c_void_p:
    """The handle that a function returns through its first argument."""
    handle = ctypes.c_void_p()
    call(function, ctypes.byref(handle), *arguments)
    return handle


def set_device(device: int = 0) -> None:
    call("aclrtSetDevice", device)


def stream() -> ctypes.c_void_p:
    return create("aclrtCreateStream")


def malloc(size_bytes: int) -> ctypes.c_void_p:
    return create("aclrtMalloc", ctypes.c_size_t(size_bytes), HUGE_FIRST)


def fill(address: ctypes.c_void_p, value: int, size_bytes: int, on: ctypes.c_void_p) -> None:
    size = ctypes.c_size_t(size_bytes)
    call("aclrtMemsetAsync", address, size, value, size, on)


def copy(target: ctypes.c_void_p, source: ctypes.c_void_p, size_bytes: int, on: ctypes.c_void_p) -> None:
    size = ctypes.c_size_t(size_bytes)
    call("aclrtMemcpyAsync", target, size, source, size, DEVICE_TO_DEVICE, on)


def read(address: ctypes.c_void_p, size_bytes: int) -> bytes:
    """Device memory, by a blocking copy."""
    buffer = ctypes.create_string_buffer(size_bytes)
    size = ctypes.c_size_t(size_bytes)
    call("aclrtMemcpy", buffer, size, address, size, DEVICE_TO_HOST)
    return buffer.raw


def synchronize(on: ctypes.c_void_p) -> None:
    call("aclrtSynchronizeStream", on)


def host_function(on: ctypes.c_void_p, function: Callable[[], None]) -> Any:
    """Run a Python function in stream order. Keep the result alive until it has run."""
    wrapped = HOST_FUNCTION(lambda _: function())
    call("aclrtLaunchHostFunc", on, wrapped, None)
    return wrapped
