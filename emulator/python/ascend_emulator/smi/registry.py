"""Which processes hold memory on which emulated chip: one small file a process and chip, written by the runtime.

The file <state folder>/<pid>.<device> holds the bytes allocated now as a little-endian 64-bit number. Files of
processes that ended without removing theirs are removed here.
"""

from __future__ import annotations

import os
import re
import struct
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"(?P<pid>\d+)\.(?P<device>\d+)")


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    memory_mib: int


def state_folder() -> Path:
    return Path(os.environ.get("ASCEND_EMULATOR_STATE_DIR") or f"/dev/shm/ascend-emulator-{os.getuid()}")


def processes() -> dict[int, list[Process]]:
    """Live processes by the chip they use, in order of process id."""
    found: dict[int, list[Process]] = defaultdict(list)
    for path in sorted(state_folder().glob("*.*")):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        pid = int(match["pid"])
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            (allocated_bytes,) = struct.unpack("<Q", path.read_bytes()[:8])
        except FileNotFoundError:
            with suppress(OSError):
                path.unlink()
        except (OSError, struct.error):
            continue  # another user's process, or a file being created
        else:
            found[int(match["device"])].append(Process(pid, name, allocated_bytes >> 20))
    return found
