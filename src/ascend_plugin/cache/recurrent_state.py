"""Recurrent states move with their sequence: from the block that was cached to the block that is written next.

vLLM's "align" mode keeps a sequence's running state in its last block. When a step begins a new block, or a sequence
starts behind a cached prefix, the state is copied there first (preprocess_mamba in vllm/v1/worker/mamba_utils.py).

With drafts the states after each token lie in the last block and those behind it. Which of them a sequence goes on
from is known once its drafts have been judged. If that leaves a block full, the state at its end is copied to it, where
the prefix cache will look for it (postprocess_mamba_align_gpu). Upstream decides that on the device; here the host
does at the beginning of the next step, before which nothing reads or writes states.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.worker.mamba_utils import MambaSpecDecodeGPUContext


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
    """Make the copies that were noted."""
    if not buffers.offset:
        return
    for group_id, pairs in buffers.ascend_copies.items():
        _copy(buffers.ascend_states[group_id], pairs)


def _states_of(group: Any, layers: dict[str, Any]) -> list[torch.Tensor]:
    return [state for name in group.layer_names for state in layers[name].kv_cache]


def _copy(states: Iterable[torch.Tensor], pairs: list[tuple[int, int]]) -> None:
    """Copy pages of every layer from block to block, whole: they are contiguous and end at 32 bytes.

    A gather and a scatter would be fewer launches, but indexing by rows is not sure on every chip (docs/silicon.md).
    """
    for state in states:
        for source, target in pairs:
            state[target].copy_(state[source])


def _pairs(sources: np.ndarray, targets: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(sources.tolist(), targets.tolist(), strict=True))


@dataclass
class BlockEnds:
    """States at ends of blocks that a step's drafts may have completed. n copies, G groups."""

    states: list[list[torch.Tensor]]  # [G] each group's layers
    rows: np.ndarray  # [n] the sequence's row in that step
    sources: np.ndarray  # [G, n] blocks to copy from ...
    targets: np.ndarray  # [G, n] ... and to
    needed: np.ndarray  # [n] how many tokens must have been kept
    in_place: np.ndarray  # [n] whether the sequence then goes on from its first slot

    def settle(self, counts: np.ndarray) -> np.ndarray:
        """Copy what has come about; counts [rows] of the step. Returns those that the next one goes on from."""
        reached = counts[self.rows] >= self.needed
        for states, sources, targets in zip(self.states, self.sources, self.targets, strict=True):
            _copy(states, _pairs(sources[reached], targets[reached]))
        kept = counts.copy()
        kept[self.rows[reached & self.in_place]] = 1
        return kept


class DraftedStates(MambaSpecDecodeGPUContext):
    """The copies of a speculating model, in the place of vLLM's kernels that take device addresses.

    The host knows which sequences reach the end of a block in a step, few of them in few steps: nothing is launched
    for the rest.
    """

    host_tables: list[np.ndarray]  # every group's [requests, blocks], as the host keeps them

    @classmethod
    def create(cls, *args: Any, make_buffer: Callable[..., Any], **kwargs: Any) -> Any:
        def stays_on_host(*arguments: Any, **options: Any) -> Any:
            buffer = make_buffer(*arguments, **options)
            buffer.copy_to_gpu = lambda count=None: buffer.gpu
            return buffer

        return super().create(*args, make_buffer=stays_on_host, **kwargs)

    def initialize_from_forward_context(
        self,
        kv_cache_config: Any,
        forward_context: dict[str, Any],
        mamba_state_copy_funcs: Any,
        block_tables: list[torch.Tensor],
        aligned_index_block_tables: list[torch.Tensor] | None = None,
    ) -> None:
        """Keep the layers' states; the blocks are looked up in host_tables."""
        groups = [kv_cache_config.kv_cache_groups[index] for index in self.mamba_group_ids]
        self.states = [_states_of(group, forward_context) for group in groups]
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
        columns = sources[rows] + self.precopy_token_bias_buf.np[rows]
        for states, table in zip(self.states, self._tables(), strict=True):
            _copy(states, _pairs(table[rows, columns], table[rows, targets[rows]]))

    def block_ends(self, names: list[str]) -> BlockEnds | None:
        """What this step's drafts will decide; names: the request of each row. None: nothing."""
        rows, source, target, needed, in_place = block_ends(
            self.num_computed_tokens_buf.np[: len(names)],
            self.num_scheduled_tokens_buf.np[: len(names)],
            self.num_draft_tokens_buf.np[: len(names)],
            self.mamba_state_idx_buf.np[: len(names)],
            self.block_size,
        )
        if not len(rows):
            return None
        sources = np.stack([table[rows, source] for table in self._tables()])
        targets = np.stack([table[rows, target] for table in self._tables()])
        return BlockEnds(self.states, rows, sources, targets, needed, in_place > 0)

    def _tables(self) -> list[np.ndarray]:
        return [self.host_tables[group] for group in self.mamba_group_ids]


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
