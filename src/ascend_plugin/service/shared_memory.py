"""Segments of shared memory that processes map, so that whoever outlives them can take the segments away.

vLLM's ranks talk through POSIX shared memory (`/dev/shm/psm_*`). Python's tracker unlinks segments whose owner was
killed, unless it was killed too; a container's /dev/shm then fills up with every restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

SEGMENTS = "/dev/shm/psm_"


def mapped_by(pids: Iterable[int]) -> set[str]:
    """Paths of the segments that these processes map; those that ended, or are another user's, map none."""
    found: set[str] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except OSError:
            continue
        found.update(line[line.index(SEGMENTS) :] for line in lines if SEGMENTS in line)
    return {path for path in found if not path.endswith(" (deleted)")}


def unlink(paths: Iterable[str]) -> None:
    """Remove what is still there; processes that map it keep it until they end."""
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()
