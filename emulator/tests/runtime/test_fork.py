"""A child of fork() has no device: it is told so, and it ends at once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from ascend_emulator.pytest_plugin import Npu

from . import cann
from .faulty import PATIENCE_S, code_of

SIZE = 64
NO_CONTEXT = 107002


def exit_code_of_child(action: Callable[[], int]) -> int:
    """What the child exits with; -9 if it had to be killed."""
    import signal
    import time

    child = os.fork()
    if child == 0:
        os._exit(action())
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def used_device() -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    cann.set_device()
    stream, memory = cann.stream(), cann.malloc(SIZE)
    cann.fill(memory, 1, SIZE, stream)
    cann.synchronize(stream)
    return stream, memory


def child_uses_the_parents_stream() -> tuple[int, int]:
    stream, memory = used_device()
    size = ctypes.c_size_t(SIZE)
    calls = [
        ("aclrtSetDevice", 0),
        ("aclrtMemsetAsync", memory, size, 1, size, stream),
        ("aclrtSynchronizeStream", stream),
        ("aclrtSynchronizeDevice",),
        ("aclrtMalloc", ctypes.byref(ctypes.c_void_p()), size, 0),
        ("aclrtResetDevice", 0),
    ]

    def child() -> int:
        return 0 if {code_of(*call) for call in calls} == {NO_CONTEXT} else 1

    code = exit_code_of_child(child)
    cann.fill(memory, 2, SIZE, stream)
    cann.synchronize(stream)
    return code, cann.read(memory, 1)[0]


def test_a_forked_child_is_told(npu: Npu) -> None:
    assert npu.call(child_uses_the_parents_stream) == (0, 2)


def message_of_the_child() -> str:
    used_device()
    reader, writer = os.pipe()

    def child() -> int:
        try:
            cann.set_device()
        except cann.AclError as error:
            os.write(writer, str(error).encode())
        return 0

    exit_code_of_child(child)
    return os.read(reader, 4096).decode()


def test_the_message_says_what_to_do(npu: Npu) -> None:
    assert "spawn" in npu.call(message_of_the_child)


def counters_of_parent_and_child(folder: str) -> tuple[list[str], int]:
    """Files of counters after both ended in the usual way, which runs the library's exit handlers."""
    import subprocess
    import sys
    from pathlib import Path

    from ascend_emulator.activation import library_folder

    program = f"""
import ctypes, os
acl = ctypes.CDLL({str(library_folder() / "libascendcl.so")!r})
acl.aclInit(None)
memory, size = ctypes.c_void_p(), ctypes.c_size_t(64)
acl.aclrtSetDevice(0)
acl.aclrtMalloc(ctypes.byref(memory), size, 0)
acl.aclrtMemsetAsync(memory, size, 1, size, None)
acl.aclrtSynchronizeStream(None)
child = os.fork()
if child:
    os.waitpid(child, 0)
"""
    environment = {**os.environ, "ASCEND_EMULATOR_STATS": folder}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    process.wait(PATIENCE_S)
    return sorted(path.stem for path in Path(folder).iterdir()), process.pid


def test_the_counts_are_the_parents(npu: Npu, tmp_path: Path) -> None:
    files, parent = npu.call(counters_of_parent_and_child, str(tmp_path))
    assert files == [str(parent)]


def fork_before_the_first_use() -> int:
    """In a process of its own: a child of one that only loaded the library may use devices."""
    import subprocess
    import sys

    from ascend_emulator.activation import library_folder

    program = f"""
import ctypes, os
acl = ctypes.CDLL({str(library_folder() / "libascendcl.so")!r})
acl.aclInit(None)
child = os.fork()
if child == 0:
    stream, memory, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t(64)
    codes = [
        acl.aclrtSetDevice(0),
        acl.aclrtCreateStream(ctypes.byref(stream)),
        acl.aclrtMalloc(ctypes.byref(memory), size, 0),
        acl.aclrtMemsetAsync(memory, size, 1, size, stream),
        acl.aclrtSynchronizeStream(stream),
    ]
    os._exit(0 if codes == [0] * 5 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    return subprocess.run([sys.executable, "-c", program], timeout=PATIENCE_S).returncode


def test_fork_before_the_first_use(npu: Npu) -> None:
    assert npu.call(fork_before_the_first_use) == 0
