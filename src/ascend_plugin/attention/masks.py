"""Causal masks of a fixed size: the operators apply a 2048 x 2048 pattern blockwise to contexts of any length."""

from __future__ import annotations

from functools import cache

import torch
import torch_npu

from ascend_plugin.ops.formats import FRACTAL_NZ, nz_from_nd

COMPRESSED_SIZE = 2048
# What op-plugin's own tests of the two operators add to a hidden score.
HIDDEN_PREFILL = -60000.0
HIDDEN_PAGED = -10000.0


def causal_pattern(hidden: float) -> torch.Tensor:
    """[2048, 2048] fp16 on the host: 0 where a query sees a key, `hidden` above the diagonal."""
    return torch.full((COMPRESSED_SIZE, COMPRESSED_SIZE), hidden, dtype=torch.float16).triu_(1)


@cache
def compressed_prefill_mask(device: torch.device) -> torch.Tensor:
    """For _npu_flash_attention_v3: FRACTAL_NZ, [1, 128, 2048, 16]."""
    return torch_npu.npu_format_cast(nz_from_nd(causal_pattern(HIDDEN_PREFILL)).to(device), FRACTAL_NZ)


@cache
def compressed_paged_mask(device: torch.device) -> torch.Tensor:
    """For _npu_paged_attention_splitfuse_v2: ND, [2048, 2048]."""
    return causal_pattern(HIDDEN_PAGED).to(device)
