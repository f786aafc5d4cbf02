"""Random calls of CANN's C entry points: `python -m fuzz.calls LOG FIRST_SEED SEEDS CALLS`.

Handles are right, stale, null, of another kind or no handle at all; addresses are of device and host memory that
exists, or null, and to free never of such, which tasks may use; out-pointers exist or are null; numbers are small or at
the edges of their types. LOG has the call under way, for the process that finds this one dead; the output says how
often each function answered with what.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import random
import sys
from pathlib import Path
from typing import Any

from ascend_emulator.activation import library_folder

from .prototypes import Parameter, Prototype, exported

LOG_BYTES = 4096
BUFFER_BYTES = 1 << 16
SMALL_SIZES = (0, 1, 2, 8, 64, 4096)
HUGE_SIZES = (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)
INTEGERS = (0, 1, 2, 3, 4, 7, 8, 100, 1000, -1, -2, (1 << 31) - 1, -(1 << 31))
WILD = (0x1234, (1 << 47) + 8, (1 << 64) - 8)
HANDLES = {
    "aclrtStream", "aclrtEvent", "aclrtContext", "aclmdlRI", "aclrtTaskGrp", "aclrtDrvMemHandle", "HcclComm",
    "aclTensor*", "aclScalar*", "aclIntArray*", "aclFloatArray*", "aclBoolArray*", "aclTensorList*", "aclScalarList*",
    "aclTensorDesc*", "aclDataBuffer*", "aclopAttr*",
}  # fmt: skip
LISTED = {"aclTensorDesc*", "aclDataBuffer*"}  # that functions of the older interface take arrays of
FUNCTIONS = {"aclrtHostFunc", "aclrtCallback"}
WIDE = {"size_t", "uint64_t", "int64_t"}
# What blocks for good when it is used right, and functions that take an array as long as a number says.
LEFT_OUT = {
    "aclrtSubscribeReport",
    "aclrtValueWait",
    "aclInit",
    "HcclCommInitRootInfo",
    "HcclCommInitRootInfoConfig",
    "HcclCreateSubCommConfig",
    "HcclCommInitClusterInfo",
    "HcclCommInitClusterInfoConfig",
    "HcclGroupStart",
    "HcclBatchSendRecv",
}
HOST_ARRAYS = ("value", "Counts", "Displs", "ispls", "Matrix")  # the ends of names of void pointers to host memory
ARRAYS = {"aclrtMemcpyBatch", "aclrtMemcpyBatchAsync", "aclCreateTensor"}
ARRAY_PREFIXES = ("aclCreate", "aclSetTensor")


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def nothing(_: Any) -> None:
    """A function of the program."""


class Caller:
    """What exists for one seed, and the calls made of it."""

    def __init__(self, libraries: list[ctypes.CDLL], prototypes: list[Prototype], log: mmap.mmap) -> None:
        self.libraries, self.prototypes, self.log = libraries, prototypes, log
        self.answers: dict[str, dict[int, int]] = {}
        # For the whole process: what a stream copies into them late must find them.
        self.host = [ctypes.create_string_buffer(BUFFER_BYTES) for _ in range(3)]

    def begin(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.handles: dict[str, list[int]] = {kind: [] for kind in HANDLES}
        self.addresses: list[int] = []
        self.note("aclrtResetDeviceForce")
        self.function("aclrtResetDeviceForce")(0)
        self.function("aclrtSetDevice")(0)
        for _ in range(3):
            self.address()

    def function(self, name: str) -> Any:
        return next(getattr(library, name) for library in self.libraries if hasattr(library, name))

    def note(self, call: str) -> None:
        self.log[:LOG_BYTES] = f"seed {self.seed}: {call}".encode()[:LOG_BYTES].ljust(LOG_BYTES, b"\0")

    def address(self) -> int:
        made = ctypes.c_void_p()
        self.function("aclrtMalloc")(ctypes.byref(made), ctypes.c_size_t(BUFFER_BYTES), 0)
        if made.value:
            self.addresses.append(made.value)
        return made.value or 0

    def call(self, prototype: Prototype) -> None:
        # Either sizes are small, or no address is one of host memory, which has a size that only the program knows.
        may_be_huge = self.random.random() < 0.2 and not self.takes_array(prototype)
        self.frees = "Free" in prototype.name
        texts, values = [], []
        for parameter in prototype.parameters:
            value = self.value(parameter, may_be_huge)
            values.append(value)
            texts.append(f"{parameter.name}={getattr(value, 'value', value)!r}")
        self.note(f"{prototype.name}({', '.join(texts)})")
        function = self.function(prototype.name)
        function.restype = ctypes.c_void_p if prototype.result.endswith("*") else ctypes.c_int
        result = function(*values)
        if prototype.result in HANDLES and result:
            self.handles[prototype.result].append(result)
        if prototype.result in ("aclError", "aclnnStatus", "HcclResult"):
            counts = self.answers.setdefault(prototype.name, {})
            counts[result] = counts.get(result, 0) + 1
            if result == 0:
                self.keep_results(prototype, values)

    def takes_array(self, prototype: Prototype) -> bool:
        return prototype.name in ARRAYS or prototype.name.startswith(ARRAY_PREFIXES)

    def keep_results(self, prototype: Prototype, values: list[Any]) -> None:
        for parameter, value in zip(prototype.parameters, values, strict=True):
            kind = parameter.type.removesuffix("*")
            if kind in HANDLES and kind != parameter.type and value.value:
                made = ctypes.c_uint64.from_address(value.value).value
                if made:
                    self.handles[kind].append(made)

    def value(self, parameter: Parameter, may_be_huge: bool) -> Any:
        kind, pick = parameter.type, self.random
        if kind in HANDLES:
            return self.handle(kind)
        if kind in FUNCTIONS:
            return ctypes.c_void_p(pick.choice((None, ctypes.cast(nothing, ctypes.c_void_p).value)))
        if kind == "char*":
            return ctypes.c_char_p(pick.choice((None, b"", b"/dev/null", b"/no/such/file", b"1:2:3:4:5", b"Identity")))
        if kind.endswith("*"):
            return self.pointer(kind, parameter.name, may_be_huge)
        if kind in WIDE:
            return ctypes.c_uint64(pick.choice(HUGE_SIZES if may_be_huge and pick.random() < 0.5 else SMALL_SIZES))
        if parameter.name == "ndev":
            return ctypes.c_uint32(pick.choice((0, 1, 1 << 31)))  # with more, a rank waits for others that never call
        if "timeout" in parameter.name.lower():
            return ctypes.c_int32(pick.choice((0, 1, -1, -2)))
        return ctypes.c_int32(pick.choice(INTEGERS))

    def handle(self, kind: str) -> ctypes.c_void_p:
        pick = self.random
        chance = pick.random()
        if chance < 0.6 and self.handles[kind]:
            return ctypes.c_void_p(pick.choice(self.handles[kind][-20:]))  # some of them stale
        if chance < 0.7:
            others = [handle for handles in self.handles.values() for handle in handles]
            if others:
                return ctypes.c_void_p(pick.choice(others))
        return ctypes.c_void_p(None if chance < 0.85 else pick.choice(WILD))

    def pointer(self, kind: str, name: str, may_be_huge: bool) -> ctypes.c_void_p:
        pick = self.random
        if pick.random() < 0.15:
            return ctypes.c_void_p(None)
        if kind.removesuffix("*") in LISTED and pick.random() < 0.7:
            handles = (ctypes.c_void_p * 4)(*(self.handle(kind.removesuffix("*")).value for _ in range(4)))
            ctypes.memmove(self.host[0], handles, ctypes.sizeof(handles))
            return ctypes.c_void_p(ctypes.addressof(self.host[0]))
        if self.frees and kind == "void*":
            return ctypes.c_void_p(pick.choice((*WILD, *(address + 8 for address in self.addresses))))
        is_memory = kind == "void*" and not name.endswith(HOST_ARRAYS) and (pick.random() < 0.7 or may_be_huge)
        if is_memory and self.addresses:
            return ctypes.c_void_p(pick.choice(self.addresses))
        if may_be_huge and kind == "void*":
            return ctypes.c_void_p(None)
        buffer = pick.choice(self.host)
        ctypes.memset(buffer, 0, 1024)
        return ctypes.c_void_p(ctypes.addressof(buffer))


def load() -> list[ctypes.CDLL]:
    folder = library_folder()
    runtime = ctypes.CDLL(str(folder / "libascendcl.so"), mode=ctypes.RTLD_GLOBAL)
    import torch  # noqa: F401  (libhccl's arithmetic needs its libraries)

    ctypes.CDLL(str(folder / "libemulator_math.so"), mode=ctypes.RTLD_GLOBAL)
    others = (
        ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL) for name in ("hccl", "acl_op_compiler")
    )
    return [runtime, *others]


def main(log_path: str, first_seed: int, seeds: int, calls: int) -> None:
    libraries = load()
    declared = exported(name for name in all_names() if any(hasattr(library, name) for library in libraries))
    prototypes = [prototype for name, prototype in sorted(declared.items()) if name not in LEFT_OUT]
    libraries[0].aclInit(None)
    with Path(log_path).open("r+b") as file:
        log = mmap.mmap(file.fileno(), LOG_BYTES)
    caller = Caller(libraries, prototypes, log)
    for seed in range(first_seed, first_seed + seeds):
        caller.begin(seed)
        for _ in range(calls):
            caller.call(caller.random.choice(prototypes))
    print(json.dumps({"functions": len(prototypes), "answers": caller.answers}), flush=True)


def all_names() -> list[str]:
    from .prototypes import DESCRIPTORS, folders, parse

    texts = [DESCRIPTORS, *(path.read_text() for folder in folders() for path in sorted(folder.glob("*.h")))]
    return [prototype.name for text in texts for prototype in parse(text)]


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
