"""What a container needs of the machine: Docker, Ascend Docker Runtime, shared memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from ascend_cli.doctor.findings import Finding, note, ok, warning
from ascend_cli.doctor.versions import supported
from ascend_cli.hardware import Host


def check_containers(host: Host) -> Iterator[Finding]:
    yield from _shared_memory(host)
    if host.command("docker") is None:
        yield note(
            "docker",
            "docker was not found",
            "`ascend deploy` needs it; `ascend serve` does not",
            "install Docker Engine 24 or newer",
        )
        return
    yield ok("docker", "docker is installed")
    yield _ascend_runtime(host)


def _shared_memory(host: Host) -> Iterator[Finding]:
    """Size of /dev/shm, which carries the messages between vLLM's processes."""
    folder = host.path("/dev/shm")
    if not folder.is_dir():
        yield warning(
            "shared memory", "/dev/shm is missing", "vLLM's workers talk through it", "in a container add --shm-size 4g"
        )
        return
    filesystem = os.statvfs(folder)
    size_gib = filesystem.f_frsize * filesystem.f_blocks / (1 << 30)
    if size_gib < supported()["limits"]["shm_gib"]:
        why = "vLLM's workers talk through it and fail at start"
        fix = "in a container add --shm-size 4g; else sudo mount -o remount,size=4g /dev/shm"
        yield warning("shared memory", f"/dev/shm has {size_gib * 1024:.0f} MiB", why, fix)
    else:
        yield ok("shared memory", f"/dev/shm has {size_gib:.1f} GiB")


def _ascend_runtime(host: Host) -> Finding:
    try:
        runtimes = json.loads(host.read("/etc/docker/daemon.json") or "{}").get("runtimes") or {}
    except (ValueError, AttributeError):
        return warning(
            "ascend runtime",
            "/etc/docker/daemon.json is not valid JSON",
            "Docker will not start with it",
            "fix the file",
        )
    if "ascend" in runtimes:
        return ok("ascend runtime", "Ascend Docker Runtime is registered: `ascend deploy --runtime ascend` works")
    why = "with it a container needs three lines instead of fifteen"
    return note(
        "ascend runtime", "Ascend Docker Runtime is not registered", why, "optional: install Ascend-docker-runtime"
    )
