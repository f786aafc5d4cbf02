"""Where each token's key and value go in the cache, for models whose step inputs vLLM prepares on the device.

In int32, flat indices and whole buffers (docs/silicon.md).
"""

from __future__ import annotations

import torch


def compute_slot_mapping(
    num_tokens: int,
    max_num_tokens: int,
    query_start_loc: torch.Tensor,  # [R + 1] int32
    positions: torch.Tensor,  # [T] int64
    block_table: torch.Tensor,  # [max R, blocks] int32
    block_table_stride: int,
    slot_mapping: torch.Tensor,  # [max T] int64, written
    block_size: int,
    cp_world_size: int = 1,
    cp_rank: int = 0,
    cp_interleave: int = 1,
    pad_id: int = -1,
    triton_block_size: int = 0,
) -> None:
    """slot = block_table[request, position // block_size] * block_size + position % block_size; padding gets pad_id."""
    if cp_world_size != 1:
        raise NotImplementedError("Decode context parallelism is not supported on Ascend yet.")
    positions = positions[:num_tokens].to(torch.int32)
    width = block_table.shape[1]
    entries = request_of_token(query_start_loc, num_tokens) * width + positions // block_size
    blocks = block_table.reshape(-1).index_select(0, entries)
    slots = (blocks * block_size + positions % block_size).to(slot_mapping.dtype)
    padding = slots.new_full((max_num_tokens - num_tokens,), pad_id)
    slot_mapping[:max_num_tokens].copy_(torch.cat([slots, padding]))


def request_of_token(query_start_loc: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[T] int32: the request that each token belongs to, without reading the starts back to the host."""
    tokens = torch.arange(num_tokens, device=query_start_loc.device, dtype=torch.int32)
    return (tokens[:, None] >= query_start_loc[None, 1:]).to(torch.float32).sum(dim=1).to(torch.int32)
