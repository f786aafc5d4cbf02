"""A server as a service manager sees it: its processes, its chips' memory, its streams, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.end_to_end.server import free_port, tail

ASCEND = str(Path(sys.executable).with_name("ascend"))
START_LIMIT_S = 400
SEGMENTS = Path("/dev/shm")


@dataclass
class Stream:
    """One streamed completion, read in a thread of its own."""

    text: str = ""
    chunks: int = 0
    error: str = ""  # the server's, in the stream or as a status
    broken: str = ""  # the connection's
    done: bool = False
    finish_reason: str = ""
    first: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def is_success(self) -> bool:
        """As OpenAI's clients decide it: a finish reason, no error, and the mark of the end."""
        return self.done and bool(self.finish_reason) and not self.error and not self.broken

    def join(self, limit_s: float) -> Stream:
        assert self.thread is not None
        self.thread.join(limit_s)
        assert not self.thread.is_alive(), f"a stream had no end within {limit_s} s"
        return self


@dataclass
class Running:
    """A started `ascend serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    model: str = "tiny"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def descendants(self, name: str = "") -> list[psutil.Process]:
        """Living processes below the server's, by a part of their title (`EngineCore`, `Worker`)."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if name in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def health(self, timeout_s: float = 5) -> int:
        """The status of /health; 0 if nobody answers."""
        try:
            return httpx.get(f"{self.url}/health", timeout=timeout_s).status_code
        except httpx.TransportError:
            return 0

    def post(self, path: str, body: object, timeout_s: float = 60, **more: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=timeout_s, headers=self.headers, **more)  # type: ignore[arg-type]

    def complete(self, prompt: str = "The", **more: object) -> str:
        body = {"model": self.model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True} | more
        answer = self.post("/v1/completions", body, timeout_s=120)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        assert found, f"/metrics has no {name}"
        return sum(found)

    def stream(self, max_tokens: int, prompt: str = "The", **more: object) -> Stream:
        found = Stream()
        body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
        found.thread = threading.Thread(target=self._read, args=(body | {"temperature": 0} | more, found), daemon=True)
        found.thread.start()
        return found

    def _read(self, body: dict[str, object], found: Stream) -> None:
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/completions", json=body, timeout=120, headers=self.headers
            ) as answer:
                if answer.status_code != 200:
                    found.error = f"{answer.status_code} {answer.read().decode()}"
                    return
                for line in answer.iter_lines():
                    _take(line, found)
        except httpx.TransportError as error:
            found.broken = repr(error)
        finally:
            found.first.set()


def _take(line: str, found: Stream) -> None:
    if not line.startswith("data: "):
        return
    if line == "data: [DONE]":
        found.done = True
        return
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        found.error = event["error"]["message"]
        return
    choice = event["choices"][0]
    found.text += choice["text"]
    found.chunks += 1
    found.finish_reason = choice.get("finish_reason") or found.finish_reason
    found.first.set()


def segments() -> set[str]:
    return {path.name for path in SEGMENTS.glob("psm_*")}


@contextmanager
def started(
    model: Path, *flags: str, log: Path, environment: dict[str, str] | None = None, wait: bool = True
) -> Iterator[Running]:
    """`ascend serve MODEL -- FLAGS`; whatever is left of it afterwards is killed by process id."""
    port = free_port()
    command = [ASCEND, "serve", str(model), "--", "--port", str(port), "--served-model-name", "tiny", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"XDG_RUNTIME_DIR": str(log.parent)} | (environment or {}),
            start_new_session=True,
        )
    server = Running(process, port, log)
    seen: set[psutil.Process] = set()
    try:
        if wait:
            wait_until_healthy(server)
        seen.update(server.descendants())
        yield server
    finally:
        seen.update(server.descendants())
        for left in seen:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        if process.poll() is None:
            process.kill()
        process.wait(30)


def wait_until_healthy(server: Running) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while server.health() != 200:
        if server.process.poll() is not None:
            raise RuntimeError(f"ascend serve exited with {server.process.returncode}:\n{tail(server.log)}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"ascend serve was not healthy after {START_LIMIT_S} s:\n{tail(server.log)}")
        time.sleep(0.2)


def wait_until_gone(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Those that still live (zombies do not) after at most limit_s."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and (left := [one for one in processes if lives(one)]):
        time.sleep(0.1)
    else:
        left = [one for one in processes if lives(one)]
    return left


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(server: Running, number: signal.Signals) -> None:
    """To the server alone, as a service manager does."""
    os.kill(server.process.pid, number)
