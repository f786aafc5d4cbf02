"""A real `vllm serve` process for tests: started with the flags a user would type, stopped without leaving anything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

VLLM = str(Path(sys.executable).with_name("vllm"))
START_TIMEOUT_S = 400  # a cold start of four ranks on two shared cores; a warm one takes a tenth of this


@dataclass(frozen=True)
class Server:
    """A served model: where it listens, under which name, and the file that its output goes to."""

    port: int
    log: Path

    @property
    def root_url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str, input_text: str | None = None, timeout_s: int = 300) -> subprocess.CompletedProcess[str]:
    """Run one of vLLM's commands as a user would; standard output and error come back as text."""
    return subprocess.run(command, input=input_text, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextmanager
def serve(*arguments: str, log: Path, environment: dict[str, str] | None = None, vllm: str = VLLM) -> Iterator[Server]:
    """Run `vllm serve` with arguments until the block ends; raise with the log's tail if it does not come up."""
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [vllm, "serve", *arguments, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
    server = Server(port, log)
    try:
        wait_until_healthy(server, process)
        yield server
    finally:
        stop(process)


def wait_until_healthy(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"vllm serve exited with {process.returncode}:\n{tail(server.log)}")
        try:
            if httpx.get(f"{server.root_url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"vllm serve was not healthy after {START_TIMEOUT_S} s:\n{tail(server.log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT as Ctrl-C sends it; what is still alive half a minute later is killed with its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def tail(log: Path, lines: int = 60) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
