"""A block table that stays on the device, and the part of it that a step changes.

A request's blocks change when it joins, moves to another row or fills a block, so most decode steps change nothing,
and what is sent depends neither on the table's width (max_model_len) nor on requests that do not run.
"""

from __future__ import annotations

import numpy as np
import torch


class DeviceBlockTable:
    """One KV cache group's table, [max_requests, width] int32, with a copy of it on the host.

    Entries beyond a request's blocks, and rows beyond the batch, hold whatever earlier steps left there: blocks of the
    cache, which operators do not read. The null block 0 comes first.
    """

    def __init__(self, max_requests: int, width: int, device: torch.device) -> None:
        self.device = torch.zeros((max_requests, width), dtype=torch.int32, device=device)
        self.host = np.zeros((max_requests, width), dtype=np.int32)

    def update(self, blocks: np.ndarray, used: int) -> tuple[slice, slice] | None:
        """Take over the first `used` columns of blocks [R, width]; returns the rows and columns with every change."""
        kept, wanted = self.host[: len(blocks), :used], blocks[:, :used]
        changed = kept != wanted
        if not changed.any():
            return None
        kept[:] = wanted
        return _span(changed.any(axis=1)), _span(changed.any(axis=0))


def _span(flags: np.ndarray) -> slice:
    """From the first set flag to the last."""
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1)
