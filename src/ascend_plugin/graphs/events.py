"""How many events the chip has left, which is what graphs with collectives run out of."""

from __future__ import annotations

import ctypes

from ascend_plugin.detection import ACL_LIBRARY
from ascend_plugin.graphs.budget import RESERVED_EVENTS


def available_events() -> int | None:
    """Events that this process's chip can still give; None where CANN does not say (aclrtGetEventAvailNum)."""
    ask = getattr(ctypes.CDLL(ACL_LIBRARY), "aclrtGetEventAvailNum", None)
    count = ctypes.c_uint32()
    return None if ask is None or ask(ctypes.byref(count)) != 0 else count.value


class EventMeter:
    """What the graphs captured so far took, and whether there is room for one more like the largest of them."""

    def __init__(self) -> None:
        self.per_graph = 0
        self._before: int | None = None

    def has_room(self) -> bool:
        """Whether one more graph fits, with what must stay for everything outside graphs; to be asked before each."""
        self._before = available_events()
        return self._before is None or self._before - self.per_graph >= RESERVED_EVENTS

    def measure(self) -> None:
        """Take note of the graph that was captured since has_room()."""
        after = available_events()
        if self._before is not None and after is not None:
            self.per_graph = max(self.per_graph, self._before - after)
