"""What `ascend serve` knows of a server it started, for `ascend bench` and `ascend top` on the same machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


@dataclass(frozen=True)
class StartedServer:
    """One server, by its port; `pid` is the process of `vllm serve`."""

    pid: int
    port: int
    model: str
    chip: str
    tensor_parallel_size: int
    emulated: bool
    clock: str
    settings: dict[str, str] = field(default_factory=dict)


def folder() -> Path:
    home = Path(os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "ascend-plugin" / "servers"


def remember(server: StartedServer) -> None:
    """Keep a record for as long as the process lives; a machine where it cannot be written only loses convenience."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        (folder() / f"{server.port}.json").write_text(json.dumps(asdict(server)), encoding="utf-8")
    except OSError:
        return


def find(url: str) -> StartedServer | None:
    """The server that was started here on a URL's port and still runs."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.hostname not in LOCAL_NAMES:
        return None
    file = folder() / f"{parts.port or 8000}.json"
    try:
        server = StartedServer(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return server if _runs(server.pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
