"""A block table that stays on the device, and the rows of it that a step changes.

A request's blocks change when it joins, moves to another row or fills a block, so most decode steps change nothing.
They are sent from host memory, the changed part of one row or several rows whole: the copy engine writes the bytes it
is given, where a copy between device buffers that ends inside a 32-byte block can spoil what follows on chips without
a padded store (see docs/silicon.md).
"""

from __future__ import annotations

import numpy as np
import torch


class DeviceBlockTable:
    """One KV cache group's table, [max_requests, width] int32, with a copy of it in pinned memory of the host.

    Entries beyond a request's blocks, and rows beyond the batch, hold whatever earlier steps left there: blocks of the
    cache, which operators do not read. The null block 0 comes first.
    """

    def __init__(self, max_requests: int, width: int, device: torch.device) -> None:
        self.device = torch.zeros((max_requests, width), dtype=torch.int32, device=device)
        self._pinned = torch.zeros((max_requests, width), dtype=torch.int32, pin_memory=device.type != "cpu")
        self.host = self._pinned.numpy()

    def update(self, blocks: np.ndarray, used: int) -> tuple[slice, slice] | None:
        """Take over the first `used` columns of blocks [R, width]; returns what to upload, None if nothing changed."""
        kept, wanted = self.host[: len(blocks), :used], blocks[:, :used]
        changed = kept != wanted
        rows = _span(changed.any(axis=1))
        if rows is None:
            return None
        kept[:] = wanted
        columns = _span(changed.any(axis=0)) if rows.stop - rows.start == 1 else None
        return rows, columns or slice(None)

    def upload(self, rows: slice, columns: slice) -> None:
        """Send a part that is contiguous; the host's copy must stay as it is until it has arrived."""
        self.device[rows, columns].copy_(self._pinned[rows, columns], non_blocking=True)


def _span(flags: np.ndarray) -> slice | None:
    """From the first set flag to the last; None where none is."""
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else None
