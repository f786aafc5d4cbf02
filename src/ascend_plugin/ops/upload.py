"""Many small arrays of integers on the device by one copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

WORDS = 8  # every array begins at so many elements: at 64 bytes in int64, at 32 in int32


def upload(
    arrays: Sequence[torch.Tensor], device: torch.device, dtype: torch.dtype = torch.int64
) -> list[torch.Tensor]:
    """The arrays, as dtype, from pinned memory; each begins where the chip's vector units can read."""
    sizes = [-(-array.numel() // WORDS) * WORDS for array in arrays]
    packed = torch.zeros(sum(sizes), dtype=dtype, pin_memory=device.type != "cpu")
    for part, array in zip(packed.split(sizes), arrays, strict=True):
        part[: array.numel()] = array.flatten()
    parts = packed.to(device, non_blocking=True).split(sizes)
    return [part[: array.numel()].view(array.shape) for part, array in zip(parts, arrays, strict=True)]
