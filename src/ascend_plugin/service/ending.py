"""The last resort when a server has been told to end: its engine and ranks are killed, then the server itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

from ascend_plugin.service import shared_memory


def descendants() -> list[psutil.Process]:
    """The processes that this one started, and those that they started."""
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def end_for_certain(number: int, after_s: float, segments: Iterable[str] = ()) -> None:
    """Whatever is still there after after_s is not waited for: ranks and engine are killed, then this process.

    Their segments of shared memory go too, and those in `segments`, whose processes may be gone by then. The exit code
    is that of a process that signal `number` ended.
    """
    time.sleep(after_s)
    processes = descendants()
    mapped = shared_memory.mapped_by(process.pid for process in processes)
    for process in reversed(processes):
        process.kill()
    shared_memory.unlink(mapped.union(segments))
    os._exit(128 + number)
