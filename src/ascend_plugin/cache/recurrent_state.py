"""Recurrent states move with their sequence: from the block that was cached to the block that is written next.

vLLM's "align" mode keeps a sequence's running state in its last block. When a step begins a new block, or a sequence
starts behind a cached prefix, the state is copied there first (preprocess_mamba in vllm/v1/worker/mamba_utils.py).

With drafts the states after each token lie in the last block and those behind it. Which of them a sequence goes on
from is known once its drafts have been judged. If that leaves a block full, the state at its end is copied to it, where
the prefix cache will look for it (postprocess_mamba_align_gpu).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker.mamba_utils import MambaSpecDecodeGPUContext

NULL_BLOCK = 0  # belongs to no sequence


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

    Raises NotImplementedError for a copy that also shifts by accepted draft tokens: DraftedStates makes those.
    """
    if source == target and not accepted_tokens_beyond_first:
        return
    if accepted_tokens_beyond_first:
        raise NotImplementedError("States of drafted tokens are copied by DraftedStates.")
    if not buffers.offset:  # the caller resets it at each step
        buffers.ascend_copies = defaultdict(list)
    for group_id in group_ids:
        blocks = request.block_ids[group_id]
        buffers.ascend_copies[group_id].append((blocks[source], blocks[target]))
    buffers.ascend_states = {
        group_id: _states_of(kv_cache_config.kv_cache_groups[group_id], layers) for group_id in group_ids
    }
    buffers.offset += 1


def copy_blocks(buffers: Any) -> None:
    """Make the copies that were noted, one gather and one scatter for each state tensor."""
    if not buffers.offset:
        return
    for group_id, pairs in buffers.ascend_copies.items():
        states = buffers.ascend_states[group_id]
        index = torch.tensor(pairs, dtype=torch.int64).to(states[0].device, non_blocking=True)
        _copy(states, index[:, 0], index[:, 1])


def _states_of(group: Any, layers: dict[str, Any]) -> list[torch.Tensor]:
    return [state for name in group.layer_names for state in layers[name].kv_cache]


def _copy(states: Iterable[torch.Tensor], sources: torch.Tensor, targets: torch.Tensor) -> None:
    for state in states:
        state[targets] = state.index_select(0, sources)


class DraftedStates(MambaSpecDecodeGPUContext):
    """The copies of a speculating model, in the place of vLLM's kernels that take device addresses.

    The host knows which sequences reach the end of a block in a step, few of them in few steps: nothing is launched
    for the rest.
    """

    def initialize_from_forward_context(
        self,
        kv_cache_config: Any,
        forward_context: dict[str, Any],
        mamba_state_copy_funcs: Any,
        block_tables: list[torch.Tensor],
        aligned_index_block_tables: list[torch.Tensor] | None = None,
    ) -> None:
        """Keep the tensors.

        block_tables: the first rows of each group's [requests, blocks], which stays where it is from step to step.
        """
        groups = [kv_cache_config.kv_cache_groups[index] for index in self.mamba_group_ids]
        self.states = [_states_of(group, forward_context) for group in groups]
        requests = self.num_accepted_tokens_out.shape[0]
        self.block_tables = [table.as_strided((requests, table.shape[1]), table.stride()) for table in block_tables]
        self.is_initialized = True

    def run_fused_precopy(
        self,
        num_reqs: int,
        state_idx_gpu: torch.Tensor,
        src_col_gpu: torch.Tensor,
        token_bias_gpu: torch.Tensor,
        idx_mapping: torch.Tensor | None,
    ) -> None:
        """Before a step, bring the state of a sequence that begins a new block there."""
        sources, targets = self.precopy_src_col_buf.np[:num_reqs], self.mamba_state_idx_buf.np[:num_reqs]
        rows = np.flatnonzero((sources >= 0) & (sources != targets))
        if not len(rows):
            return
        index = np.stack([rows, sources[rows] + self.precopy_token_bias_buf.np[rows], targets[rows]])
        row, source, target = async_tensor_h2d(torch.from_numpy(index.astype(np.int64)), device=state_idx_gpu.device)
        for table, states in zip(self.block_tables, self.states, strict=True):
            _copy(states, table[row, source].to(torch.int64), table[row, target].to(torch.int64))

    def run_fused_postprocess(
        self,
        num_reqs: int,
        num_accepted_tokens_gpu: torch.Tensor,
        mamba_state_idx_gpu: torch.Tensor,
        num_scheduled_tokens_gpu: torch.Tensor,
        num_computed_tokens_gpu: torch.Tensor,
        num_draft_tokens_gpu: torch.Tensor,
    ) -> None:
        """After a step, keep the state at the end of a block for the prefix cache, if its last token was accepted."""
        self.num_accepted_tokens_out[:num_reqs].copy_(num_accepted_tokens_gpu[:num_reqs])
        found = block_ends(
            self.num_computed_tokens_buf.np[:num_reqs],
            self.num_scheduled_tokens_buf.np[:num_reqs],
            self.num_draft_tokens_buf.np[:num_reqs],
            self.mamba_state_idx_buf.np[:num_reqs],
            self.block_size,
        )
        if not found.shape[1]:
            return
        row, source, target, needed, in_place = async_tensor_h2d(
            torch.from_numpy(found), device=num_accepted_tokens_gpu.device
        )
        reached = num_accepted_tokens_gpu[row] >= needed
        for table, states in zip(self.block_tables, self.states, strict=True):
            targets = table[row, target].to(torch.int64).masked_fill(~reached, NULL_BLOCK)
            _copy(states, table[row, source].to(torch.int64), targets)
        # The sequence then goes on from its first slot.
        accepted = self.num_accepted_tokens_out
        accepted[row] = accepted[row].masked_fill(reached & (in_place > 0), 1)


def block_ends(
    computed: np.ndarray,  # [R] tokens before the step
    scheduled: np.ndarray,  # [R] tokens of the step
    drafts: np.ndarray,  # [R] how many of them are drafts
    state_column: np.ndarray,  # [R] column of the block table with the state after the last token that is no draft
    block_size: int,
) -> np.ndarray:
    """[5, copies] int64: sequences that reach the end of a block with one of their last tokens, and what to copy then.

    Rows: sequence; column to copy from; column of the block that has become full; how many tokens have to be accepted,
    with the one sampled after them; whether that column is state_column.
    """
    certain, end = computed + scheduled - drafts, computed + scheduled
    boundary = end // block_size * block_size
    beyond, target = boundary - certain, boundary // block_size - 1
    rows = np.flatnonzero((beyond >= 0) & ((beyond > 0) | (target != state_column)))
    same = target[rows] == state_column[rows]
    return np.stack([rows, state_column[rows] + beyond[rows], target[rows], beyond[rows] + 1, same]).astype(np.int64)
