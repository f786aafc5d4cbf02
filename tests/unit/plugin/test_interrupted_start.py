"""A SIGTERM that vLLM's handler answers with an exception ends the process, also where that exception is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil

from ascend_plugin.service import interrupted_start
from tests.upstream.source import text_of

LIMIT_S = 30
PROCESS = """
import os, signal, subprocess, sys, threading, time
from ascend_plugin.service import interrupted_start
interrupted_start.GIVE_UP_AFTER_S = 0.5

def handler(number, frame):
    pass  # an exception that nobody hears of

handler.__module__ = {module!r}
signal.signal(signal.SIGTERM, handler)
interrupted_start.prepare()
interrupted_start.prepare()  # configurations are checked several times
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])

class HeldForEver:
    def __del__(self, wait=time.sleep):
        wait(120)

print(engine.pid, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
if {leaving}:
    held = HeldForEver()  # deleted when no thread runs any more
else:
    time.sleep(3)
    print("went on", flush=True)
engine.kill()
"""


def ran(module: str, leaving: bool) -> tuple[int, list[str]]:
    """Exit code and lines of a process that is told to end while it starts."""
    script = PROCESS.format(module=module, leaving=leaving)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout.split("\n")[:-1]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine lives on"
        time.sleep(0.05)


def test_an_exception_that_is_lost_is_not_the_end_of_it() -> None:
    code, (engine, *others) = ran(interrupted_start.HANDLER_OF, leaving=False)
    assert (code, others) == (128 + signal.SIGTERM, [])
    wait_until_gone(int(engine))


def test_a_process_without_threads_is_ended_by_the_kernel() -> None:
    code, _ = ran(interrupted_start.HANDLER_OF, leaving=True)
    assert code == -signal.SIGALRM


def test_other_handlers_are_left_alone() -> None:
    """A user's program that has vllm.LLM; the parent of several API servers, whose handler stays while they serve."""
    code, (_, *others) = ran("__main__", leaving=False)
    assert (code, others) == (0, ["went on"])


def test_it_is_vllms_handler() -> None:
    source = text_of(f"{interrupted_start.HANDLER_OF}.run_server")
    assert "signal.signal(signal.SIGTERM, _interrupt_init)" in source and "raise KeyboardInterrupt" in source
