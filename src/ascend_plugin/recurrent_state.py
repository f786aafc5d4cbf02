"""Recurrent states move with their sequence: from the block that was cached to the block that is written next.

vLLM's "align" mode keeps a sequence's running state in its last block. When a step begins a new block, or a sequence
starts behind a cached prefix, the state is copied there first (preprocess_mamba in vllm/v1/worker/mamba_utils.py).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch


def collect_copies(
    buffers: Any,
    kv_cache_config: Any,
    copy_functions: Any,
    group_ids: list[int],
    source: int,
    target: int,
    accepted_tokens_beyond_first: int,
    request: Any,
    layers: dict[str, Any],
) -> None:
    """Note one request's copy, for each group of layers, from its source-th to its target-th block.

    Raises NotImplementedError for a copy that also shifts by accepted draft tokens (speculative decoding).
    """
    if source == target and not accepted_tokens_beyond_first:
        return
    if accepted_tokens_beyond_first:
        raise NotImplementedError("Prefix caching of recurrent states with speculative decoding: not on Ascend yet.")
    if not buffers.offset:  # the caller resets it at each step
        buffers.ascend_copies = defaultdict(list)
    for group_id in group_ids:
        blocks = request.block_ids[group_id]
        buffers.ascend_copies[group_id].append((blocks[source], blocks[target]))
    buffers.ascend_states = {
        group_id: [
            state for name in kv_cache_config.kv_cache_groups[group_id].layer_names for state in layers[name].kv_cache
        ]
        for group_id in group_ids
    }
    buffers.offset += 1


def copy_blocks(buffers: Any) -> None:
    """Make the copies that were noted, one gather and one scatter for each state tensor."""
    if not buffers.offset:
        return
    for group_id, pairs in buffers.ascend_copies.items():
        states = buffers.ascend_states[group_id]
        index = torch.tensor(pairs, dtype=torch.int64).to(states[0].device, non_blocking=True)
        for state in states:
            state[index[:, 1]] = state.index_select(0, index[:, 0])
