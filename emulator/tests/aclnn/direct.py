"""aclnn functions through ctypes, without torch_npu: descriptors may say anything, and a failed launch costs nothing.

Everything here runs in the process that has the chip (ascend_emulator.worker); one Chip serves it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).parents[2] / "src" / "aclnn"
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
ND, FRACTAL_NZ = 2, 29
ACL_TYPES = {
    torch.float32: 0,
    torch.float16: 1,
    torch.int8: 2,
    torch.int32: 3,
    torch.uint8: 4,
    torch.int16: 6,
    torch.int64: 9,
    torch.float64: 11,
    torch.bool: 12,
    torch.bfloat16: 27,
}
NUMBERS: dict[str, Any] = {"double": ctypes.c_double, "float": ctypes.c_float, "int8": ctypes.c_int8}
NUMBERS |= {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64, "bool": ctypes.c_bool}
NUMBERS["dtype"] = ctypes.c_int
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
PADDING_BYTES = 512  # behind every tensor, as a caching allocator rounds up
PAGE_BYTES = 4096


@cache
def signatures() -> dict[str, Any]:
    """The table of operators by name, read by the emulator's own generator."""
    spec = importlib.util.spec_from_file_location("aclnn_signatures", SOURCE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return {operator.name: operator for operator in module.parse_table(SOURCE / "signatures.txt")}


@dataclass
class Tensor:
    """A descriptor: by default that of `value`, copied to the chip as it lies in its storage."""

    value: torch.Tensor
    sizes: Sequence[int] | None = None
    strides: Sequence[int] | None = None
    offset: int | None = None
    storage_sizes: Sequence[int] | None = None
    dtype: int | None = None
    format: int = ND
    at_page_end: bool = False  # the storage ends where nothing is mapped: a kernel that runs over it faults
    address: int = field(default=0, init=False)  # of the storage, once it is on the chip

    def storage(self) -> torch.Tensor:
        return torch.empty(0, dtype=self.value.dtype).set_(self.value.untyped_storage())


@dataclass
class Answer:
    """What a call came to: `phase` 1 if it was refused, 2 if it failed on the device, 0 if it ran."""

    code: int
    phase: int
    message: str
    workspace_bytes: int = 0

    @property
    def ran(self) -> bool:
        return self.code == 0


class Chip:
    """Device 0 of this process and a stream on it."""

    _instance: Chip | None = None

    @classmethod
    def get(cls) -> Chip:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def __init__(self) -> None:
        from ascend_emulator import activation

        activation.load_libraries()
        loaded = activation.loaded()
        self.runtime = next(each for each in loaded if hasattr(each, "aclrtMalloc"))
        self.operators = next(each for each in loaded if hasattr(each, "aclnnAddGetWorkspaceSize"))
        self.runtime.aclGetRecentErrMsg.restype = ctypes.c_char_p
        for name in ("Tensor", "Scalar", "IntArray", "FloatArray", "BoolArray", "TensorList", "ScalarList"):
            getattr(self.runtime, f"aclCreate{name}").restype = POINTER
        self.runtime.aclInit(None)  # torch_npu may have been here before
        self.check("aclrtSetDevice", 0)
        self.allocations: list[int] = []
        self.descriptors: list[tuple[str, int]] = []
        self.stream = POINTER()
        self.check("aclrtCreateStream", ctypes.byref(self.stream))

    def check(self, function: str, *arguments: Any) -> None:
        code = getattr(self.runtime, function)(*arguments)
        if code != 0:
            raise RuntimeError(f"{function}: {code} {self._message()}")

    def _message(self) -> str:
        return (self.runtime.aclGetRecentErrMsg() or b"").decode(errors="replace")

    def malloc(self, size_bytes: int) -> int:
        address = POINTER()
        self.check("aclrtMalloc", ctypes.byref(address), SIZE(size_bytes), 0)
        self.allocations.append(int(address.value or 0))
        return self.allocations[-1]

    def clear(self) -> None:
        """Give back the memory and the descriptors of all calls so far."""
        for kind, handle in self.descriptors:
            getattr(self.runtime, f"aclDestroy{kind}")(POINTER(handle))
        for address in self.allocations:
            self.runtime.aclrtFree(POINTER(address))
        self.descriptors, self.allocations = [], []

    def _own(self, kind: str, handle: int | None) -> POINTER:
        if handle is not None:
            self.descriptors.append((kind, handle))
        return POINTER(handle)

    def upload(self, address: int, values: torch.Tensor) -> None:
        size = values.untyped_storage().nbytes()
        if size:
            source = POINTER(values.data_ptr())
            self.check("aclrtMemcpy", POINTER(address), SIZE(size), source, SIZE(size), HOST_TO_DEVICE)

    def download(self, tensor: Tensor) -> torch.Tensor:
        """The tensor as it is on the chip now, in a storage of its own."""
        storage = tensor.storage().clone()
        size = storage.untyped_storage().nbytes()
        if size:
            arguments = (POINTER(storage.data_ptr()), SIZE(size), POINTER(tensor.address), SIZE(size), DEVICE_TO_HOST)
            self.check("aclrtMemcpy", *arguments)
        view = tensor.value
        return storage.as_strided(view.size(), view.stride(), view.storage_offset())

    def place(self, tensor: Tensor) -> None:
        if tensor.address:
            return
        storage = tensor.storage()
        size = storage.untyped_storage().nbytes()
        if tensor.at_page_end:
            rounded = -(-max(size, 1) // PAGE_BYTES) * PAGE_BYTES
            tensor.address = self.malloc(rounded) + rounded - size
        else:
            tensor.address = self.malloc(size + PADDING_BYTES)
        self.upload(tensor.address, storage)

    def descriptor(self, tensor: Tensor) -> POINTER:
        self.place(tensor)
        value = tensor.value
        sizes = list(value.size() if tensor.sizes is None else tensor.sizes)
        strides = list(value.stride() if tensor.strides is None else tensor.strides)
        stored = [tensor.storage().numel()] if tensor.storage_sizes is None else list(tensor.storage_sizes)
        dtype = ACL_TYPES[value.dtype] if tensor.dtype is None else tensor.dtype
        offset = value.storage_offset() if tensor.offset is None else tensor.offset
        handle = self.runtime.aclCreateTensor(
            int64s(sizes), SIZE(len(sizes)), ctypes.c_int(dtype), int64s(strides), int64(offset),
            ctypes.c_int(tensor.format), int64s(stored), SIZE(len(stored)), POINTER(tensor.address),
        )  # fmt: skip
        return self._own("Tensor", handle)

    def argument(self, kind: str, value: Any) -> Any:
        if kind in NUMBERS:
            return NUMBERS[kind](float(value or 0) if kind in ("double", "float") else int(value or 0))
        if kind == "string":
            return ctypes.c_char_p(value.encode() if value is not None else None)
        if value is None:
            return POINTER()
        if kind in ("Tensor", "DynamicTensor"):
            return self.descriptor(value if isinstance(value, Tensor) else Tensor(value))
        if kind == "TensorList":
            handles = [self.argument("Tensor", each) for each in value]
            del self.descriptors[
                len(self.descriptors) - sum(handle.value is not None for handle in handles) :
            ]  # the list's
            create = self.runtime.aclCreateTensorList
            return self._own("TensorList", create((POINTER * max(1, len(handles)))(*handles), SIZE(len(handles))))
        if kind == "Scalar":
            holder = ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)
            dtype = 0 if isinstance(value, float) else 9
            return self._own("Scalar", self.runtime.aclCreateScalar(ctypes.byref(holder), ctypes.c_int(dtype)))
        if kind == "IntArray":
            return self._own("IntArray", self.runtime.aclCreateIntArray(int64s(value), SIZE(len(value))))
        if kind in ("BoolArray", "FloatArray"):
            element = ctypes.c_bool if kind == "BoolArray" else ctypes.c_float
            create = getattr(self.runtime, f"aclCreate{kind}")
            return self._own(kind, create((element * max(1, len(value)))(*value), SIZE(len(value))))
        raise ValueError(f"{kind} is not written yet")

    def prepare(self, name: str, suffix: str = "GetWorkspaceSize", /, **given: Any) -> tuple[int, POINTER, int]:
        """Phase 1 alone: its code, the executor and the workspace that it asks for. What is left out is null or 0."""
        parameters = signatures()[name].parameters
        unknown = set(given) - {parameter.name for parameter in parameters}
        if unknown:
            raise TypeError(f"aclnn{name} has no {', '.join(sorted(unknown))}")
        arguments = [self.argument(parameter.type, given.get(parameter.name)) for parameter in parameters]
        workspace, executor = ctypes.c_uint64(), POINTER()
        function = getattr(self.operators, f"aclnn{name}{suffix}")
        code = function(*arguments, ctypes.byref(workspace), ctypes.byref(executor))
        return code, executor, workspace.value

    def call(self, name: str, /, **given: Any) -> Answer:
        """Both phases and a synchronization; a failed device is reset for the next call."""
        code, executor, size = self.prepare(name, **given)
        if code != 0:
            return Answer(code, 1, self._message(), size)
        workspace = self.malloc(size) if size else 0
        launch = getattr(self.operators, f"aclnn{name}")
        code = launch(POINTER(workspace), ctypes.c_uint64(size), executor, self.stream)
        code = self.runtime.aclrtSynchronizeStream(self.stream) if code == 0 else code
        message = self._message()
        if code != 0:
            self.revive()
        return Answer(code, 2 if code else 0, message, size)

    def revive(self) -> None:
        """A new context after a device failure; the memory of the old one is gone."""
        self.runtime.aclrtResetDeviceForce(0)
        self.check("aclrtSetDevice", 0)
        self.stream = POINTER()
        self.check("aclrtCreateStream", ctypes.byref(self.stream))
        self.allocations = []


def int64(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(((value + 2**63) % 2**64) - 2**63)


def int64s(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * max(1, len(values)))(*(int64(value) for value in values))
