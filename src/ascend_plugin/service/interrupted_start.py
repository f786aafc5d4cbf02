"""A server that is told to end while it starts ends within seconds, wherever the signal finds it.

vLLM's handler raises KeyboardInterrupt. Between the engine's start and the first request the event loop waits for the
engine, and the exception is lost in it: the server then waits for ever, and its engine with it
(docs/upstream/shutdown.md). What vLLM does about the signal is left to it; this is what happens if that is not enough.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import psutil

GIVE_UP_AFTER_S = 5.0  # an engine that can be closed in order is closed by then
HANDLER_OF = "vllm.entrypoints.launchers.api_server.entry"  # whose handler stands until the server is ready


def prepare() -> None:
    """Bound what follows a SIGTERM, in a process that starts one API server. Can be repeated; elsewhere does nothing.

    When the server is ready, its own handlers take this one's place (`Lifetime`).
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and getattr(handler, "__module__", "") == HANDLER_OF:
        signal.signal(signal.SIGTERM, _bounded(handler))


def _bounded(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
    def ended(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=_end_for_certain, args=(number,), daemon=True).start()
        # Where the interpreter is gone before its threads, or a lock is held for ever, the kernel ends the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * GIVE_UP_AFTER_S)
        handler(number, frame)

    return ended


def _end_for_certain(number: int) -> None:
    """Kill what is still there after GIVE_UP_AFTER_S: the engine and its ranks, then this process."""
    time.sleep(GIVE_UP_AFTER_S)
    for process in reversed(psutil.Process().children(recursive=True)):
        process.kill()
    os._exit(128 + number)
