"""What `ascend serve` knows of a server it started, for `ascend bench` and `ascend top` on the same machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
SAME_START_S = 2.0  # two readings of one process's start differ by the clock's resolution


@dataclass(frozen=True)
class StartedServer:
    """One server, by its port; `pid` is the process of `vllm serve`, `started_s` when that process began (Unix time).

    Holds no secret: keys travel in the environment.
    """

    pid: int
    port: int
    model: str
    chip: str
    tensor_parallel_size: int
    emulated: bool
    clock: str
    weight_format: str | None = None  # None: not known
    settings: dict[str, str] = field(default_factory=dict)
    started_s: float | None = None


def folder() -> Path:
    home = Path(os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "ascend-plugin" / "servers"


def remember(server: StartedServer) -> None:
    """Keep a record for as long as the process lives; a machine where it cannot be written only loses convenience."""
    server = replace(server, started_s=_start_of(server.pid))
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder() / f"{server.port}.json"
        partial = file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump(asdict(server), output)
        partial.replace(file)
    except OSError:
        return


def find(url: str) -> StartedServer | None:
    """The server that was started here on a URL's port and still runs."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port or 8000
    except ValueError:
        return None
    if host not in LOCAL_NAMES:
        return None
    try:
        server = StartedServer(**json.loads((folder() / f"{port}.json").read_text(encoding="utf-8")))
        return server if _runs(server) else None
    except (OSError, ValueError, TypeError):
        return None


def _start_of(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None


def _runs(server: StartedServer) -> bool:
    """Whether the process of the record lives: a number that another process took since is not it."""
    started_s = _start_of(server.pid)
    if started_s is None:
        return False
    return server.started_s is not None and abs(started_s - server.started_s) <= SAME_START_S
