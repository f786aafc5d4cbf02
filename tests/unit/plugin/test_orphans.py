"""Processes named as vLLM names its engine end with their parent, and their signals are not taken for the parent's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

LIMIT_S = 20
PARENT = """
import asyncio, multiprocessing, os, signal, time
from ascend_plugin.service import orphans
orphans.GIVE_UP_AFTER_S = 0.5
orphans.prepare()
orphans.prepare()  # register() is called several times

def work(ready):
    if {deaf}:
        signal.signal(signal.SIGTERM, lambda *_: None)  # an engine that waits for requests
    ready.set()
    time.sleep(120)

async def main():
    heard = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, "SIGTERM")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=work, args=(ready,), name="{name}", daemon=True)
    child.start()
    print(child.pid, flush=True)
    if {signaled}:
        await asyncio.to_thread(ready.wait)
        os.kill(child.pid, signal.SIGTERM)
        await asyncio.sleep(1)
        print("heard", *heard, flush=True)
    await asyncio.sleep(120)

asyncio.run(main())
"""


@contextmanager
def started(name: str = "EngineCore", deaf: bool = False, signaled: bool = False) -> Iterator[subprocess.Popen[str]]:
    script = PARENT.format(name=name, deaf=deaf, signaled=signaled)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


def line_of(parent: subprocess.Popen[str]) -> str:
    assert parent.stdout is not None
    return parent.stdout.readline()


def ends(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("name", ["EngineCore_DP1", "ApiServer_0"])
def test_an_engine_ends_with_its_parent(name: str, deaf: bool) -> None:
    with started(name, deaf) as parent:
        child = int(line_of(parent))
        parent.kill()
        parent.wait()
        assert ends(child, LIMIT_S)


def test_other_processes_are_left_alone() -> None:
    with started("Worker") as parent:
        child = psutil.Process(int(line_of(parent)))
        parent.kill()
        parent.wait()
        time.sleep(2)
        assert child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        child.kill()


def test_a_signal_to_the_engine_is_not_heard_by_its_parent() -> None:
    with started(deaf=True, signaled=True) as parent:
        line_of(parent)
        assert line_of(parent).split() == ["heard"]
