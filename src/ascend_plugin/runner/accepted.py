"""How many tokens of its last step each request kept, by request: rows of the batch move between steps."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch


class AfterAcceptance(Protocol):
    """Work that had to wait for the counts (see cache.recurrent_state.BlockEnds)."""

    def settle(self, counts: np.ndarray) -> np.ndarray:
        """Do it; counts [rows] of the step it was noted in. Returns the counts that the next step goes on from."""


class AcceptedTokens:
    """Counts of a speculating engine's last step, read from its sampled tokens once they have arrived on the host.

    max_requests and width bound those tokens, [rows, width] with -1 for drafts that were refused.
    """

    def __init__(self, max_requests: int, width: int, device: torch.device) -> None:
        on_host = device.type == "cpu"
        self._buffer = torch.zeros(max_requests * width, dtype=torch.int32, pin_memory=not on_host)
        self._arrived: Any = None if on_host else getattr(torch, device.type).Event()
        self._sampled: torch.Tensor | None = None  # of a step whose counts are still to be collected
        self._names: list[str] = []
        self._after: AfterAcceptance | None = None
        self._rows: list[int] = []
        self._kept: dict[str, int] = {}

    def note(self, sampled: torch.Tensor, names: list[str], after: AfterAcceptance | None) -> None:
        """A step has sampled, or will have: send its tokens to the host. names: the request of each row."""
        self._sampled = self._buffer[: sampled.numel()].view(sampled.shape)
        self._sampled.copy_(sampled, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        self._names, self._after = list(names), after

    def collect(self) -> None:
        """Wait for the last step's tokens and count them; done at once where that has happened already."""
        if self._sampled is None:
            return
        if self._arrived is not None:
            self._arrived.synchronize()
        counts = (self._sampled.numpy() != -1).sum(axis=1)
        self._sampled, self._rows = None, counts.tolist()
        kept = np.maximum(counts, 1)
        if self._after is not None:
            kept = self._after.settle(kept)
        self._kept.update(zip(self._names, kept.tolist(), strict=False))

    def of(self, name: str) -> int:
        """Tokens of the last step of this request, with the one sampled after its drafts; 1 of a request without."""
        return self._kept.get(name, 1)

    def by_row(self) -> list[int]:
        """Counts of the last step by its rows."""
        return self._rows

    def forget(self, scheduler_output: Any) -> None:
        """Drop requests that have ended, or begin anew."""
        resumed = scheduler_output.scheduled_cached_reqs.resumed_req_ids
        for name in (*scheduler_output.finished_req_ids, *(scheduler_output.preempted_req_ids or ()), *resumed):
            self._kept.pop(name, None)
