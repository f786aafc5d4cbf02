"""A server that is told to end while it starts ends within seconds, wherever the signal finds it.

vLLM's handler raises KeyboardInterrupt. From the engine's start until the server's own handlers are there the exception
can be lost: the server goes on starting, and then serves as if nobody had told it to end (docs/upstream/shutdown.md).
What vLLM does about the signal is left to it; this is what happens if that is not enough.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from ascend_plugin.service.ending import end_for_certain

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
        threading.Thread(target=end_for_certain, args=(number, GIVE_UP_AFTER_S), daemon=True).start()
        # Where the interpreter is gone before its threads, or a lock is held for ever, the kernel ends the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * GIVE_UP_AFTER_S)
        handler(number, frame)

    return ended
