"""A process of the engine ends with the process that started it, whatever ended that one.

vLLM's API server may be killed (out of memory, SIGKILL, a hang-up). Its engine would live on: it holds the chip, and
under load a core, until somebody finds it. Ranks have a pipe to their engine for this; the engine has nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time

from ascend_plugin.service import shared_memory

WATCHED = ("EngineCore", "ApiServer")  # vLLM's names of the processes that it starts
LOOK_EVERY_S = 0.5
GIVE_UP_AFTER_S = 5.0  # after SIGTERM, which lets the device be closed in order
_registered: list[Watch] = []


class Watch:
    """Something that lives as long as the process: `register_after_fork` holds its argument weakly."""


def prepare() -> None:
    """Watch the parent from here on if this is a process of the engine, and in those that are forked from here."""
    if not _registered:
        _registered.append(Watch())
        os.register_at_fork(after_in_child=_forget_the_parents_loop)
        multiprocessing.util.register_after_fork(_registered[0], lambda _: _start())
        _start()


def _forget_the_parents_loop() -> None:
    """A fork inherits the descriptor through which signals wake the parent's event loop.

    A SIGTERM of the engine would be taken for one of the server, which then ends as if it had been asked to
    (docs/upstream/shutdown.md).
    """
    with contextlib.suppress(ValueError):  # forked from a thread that may not: then no loop waits for signals in it
        signal.set_wakeup_fd(-1)


def _start() -> None:
    """Called in a process that may be one of the engine's: a spawned one comes through prepare()."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or not multiprocessing.current_process().name.startswith(WATCHED):
        return
    # Ctrl-C goes to a terminal's whole process group: the ranks would end before the requests that are to be finished.
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    # Not os.getppid(): the parent may be gone by now, and whoever took its place would be watched.
    threading.Thread(target=_watch, args=(parent.pid,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    name = multiprocessing.current_process().name
    with contextlib.suppress(OSError):
        print(f"{name} ends: the process that started it ({parent}) is gone.", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GIVE_UP_AFTER_S)  # it may be waiting for requests that have no client any more
    shared_memory.unlink(shared_memory.mapped_by([os.getpid()]))
    os.kill(os.getpid(), signal.SIGKILL)
