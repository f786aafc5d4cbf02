"""What the emulated chips of this process did: launches by operator, copies, synchronizations, graphs, memory."""

from __future__ import annotations

import ctypes
import json
from typing import Any


class NotEmulated(RuntimeError):
    """This process has not loaded the emulated libraries: import torch_npu under emulation first."""


def _runtime() -> ctypes.CDLL:
    from ascend_emulator import activation

    for library in activation.loaded():
        if hasattr(library, "ascend_emulator_stats_json"):
            library.ascend_emulator_stats_json.restype = ctypes.c_char_p
            library.ascend_emulator_stats_reset.restype = None
            return library
    raise NotEmulated("No emulated chip in this process: import torch_npu first, without ASCEND_EMULATOR=0.")


def stats() -> dict[str, Any]:
    """Counters of this process since its start or the last reset_stats(). Raises NotEmulated."""
    counters: dict[str, Any] = json.loads(_runtime().ascend_emulator_stats_json())
    return counters


def reset_stats() -> None:
    """Set every counter of this process to zero. Raises NotEmulated."""
    _runtime().ascend_emulator_stats_reset()
