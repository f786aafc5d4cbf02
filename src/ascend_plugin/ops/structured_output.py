"""Grammar masks on logits without a shift: Ascend 310P has no RightShift, on which xgrammar's torch kernel is built."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

BITS = 32
UNCONSTRAINED = -1  # every bit set: every token allowed


def apply_grammar_bitmask(scheduler_output: Any, grammar_output: Any, input_batch: Any, logits: torch.Tensor) -> None:
    """Set the logits [rows, V] of tokens that the requests' grammars do not allow to -inf, in place.

    As vllm.v1.structured_output.utils.apply_grammar_bitmask, whose arguments it has; that calls xgrammar's kernel.
    """
    mask = arrange_rows(
        grammar_output.grammar_bitmask,
        grammar_output.structured_output_request_ids,
        input_batch.req_ids,
        scheduler_output.scheduled_spec_decode_tokens,
        logits.shape[0],
    )
    pinned = torch.from_numpy(mask).pin_memory()
    mask_logits(logits, pinned.to(logits.device, non_blocking=True))


def arrange_rows(
    bitmask: np.ndarray,  # [constrained x (1 + most drafts), V / 32] int32, in the order of `constrained`
    constrained: list[str],
    batch: list[str],
    speculated: dict[str, list[int]],
    rows: int,
) -> np.ndarray:
    """[rows, V / 32] int32: the masks in the order of the batch, where a request has a row and one for each draft.

    In `bitmask` each request has a block of the same size, however many drafts it has in this step.
    """
    arranged = np.full((rows, bitmask.shape[1]), UNCONSTRAINED, dtype=np.int32)
    first_row, row = {}, 0
    for name in batch:
        first_row[name] = row
        row += 1 + len(speculated.get(name, ()))
    block = len(bitmask) // len(constrained)
    for index, name in enumerate(constrained):
        count = 1 + len(speculated.get(name, ()))
        if name in first_row:
            arranged[first_row[name] : first_row[name] + count] = bitmask[index * block : index * block + count]
    return arranged


@cache
def _bit_values(device: torch.device) -> torch.Tensor:
    """[32] int32: the value of each bit; the last is the sign."""
    return torch.tensor([1 << bit if bit < BITS - 1 else -(1 << bit) for bit in range(BITS)], dtype=torch.int32).to(
        device
    )


def mask_logits(logits: torch.Tensor, bitmask: torch.Tensor) -> None:
    """Fill logits [rows, V] with -inf, in place, where bit v % 32 of bitmask[row, v // 32] (int32) is zero."""
    columns = min(logits.shape[-1], bitmask.shape[-1] * BITS)
    bits = torch.bitwise_and(bitmask.unsqueeze(-1), _bit_values(logits.device)).flatten(1)
    logits[:, :columns].masked_fill_(bits[:, :columns] == 0, float("-inf"))
