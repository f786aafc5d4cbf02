"""What gated delta nets need to know of a step: which slots hold a sequence's states, and which tokens are drafts.

A sequence that may be given drafts has a slot for the state after each of its tokens of a step. The next step begins
from that of the last token which was accepted, so a refused draft leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.gdn_attn import (
    GDNAttentionBackend,
    GDNAttentionMetadata,
    GDNAttentionMetadataBuilder,
)
from vllm.v1.attention.backends.utils import mamba_get_block_table_tensor

from ascend_plugin.ops import gated_delta_rule as rule


@dataclass
class HostStates:
    """Slots of a step's recurrent states, as the host planned them. R rows with padding, K drafts at most.

    A row reads its state from one slot and writes the state after each of its tokens to the next of K + 1; without
    drafts both are the same. Padding uses the null block.
    """

    read: np.ndarray  # [R] int64
    written: np.ndarray  # [K + 1, R] int64
    drafts: np.ndarray | None  # [R] drafts among a row's tokens, -1 for a prompt; None: the engine does not speculate
    read_on_device: torch.Tensor  # both again, where they keep their addresses
    written_on_device: torch.Tensor


@dataclass
class StepMetadata(CommonAttentionMetadata):
    """vLLM's metadata of a step, with what the host planned for recurrent layers."""

    states: HostStates | None = None


@dataclass
class Drafted:
    """The R sequences of a step whose tokens may be refused, with at most L tokens each.

    Their tokens are computed as a grid, token by token: place t * R + r is token t of sequence r.
    """

    length: int  # L
    read: torch.Tensor  # [R] int64: slot of the state that the sequence goes on from
    write: torch.Tensor  # [>= L, R] int64: slots of the states after each token
    tokens: torch.Tensor | None = None  # [L * R] int64: the step's token in each place; None: sequence after sequence
    places: torch.Tensor | None = None  # [n] int64: places that hold a token, where sequences differ in length ...
    targets: torch.Tensor | None = None  # ... and [n] int64: which of the step's tokens it is


@dataclass
class AscendGdnMetadata(GDNAttentionMetadata):
    """A step with drafts; vLLM's own metadata describes one without."""

    drafted: Drafted | None = None
    prefill_tokens: torch.Tensor | None = None  # int64: tokens of the other sequences, which all prefill


class AscendGdnMetadataBuilder(GDNAttentionMetadataBuilder):
    """Plans a step's sequences once, on the host, for all layers of a KV cache group."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        rows = vllm_config.scheduler_config.max_num_seqs
        self._device = device
        layer = vllm_config.compilation_config.static_forward_context[layer_names[0]]
        self._kernel: int = layer.conv_kernel_size  # of a group's layers, which keep states of one shape
        # A graph reads its slots here.
        self._read = torch.zeros(rows, dtype=torch.int64, device=device)
        self._write = torch.zeros((self.num_spec + 1, rows), dtype=torch.int64, device=device)

    def _build_chunk_metadata(
        self,
        prefill_query_start_loc: torch.Tensor,
        prefill_query_start_loc_cpu: torch.Tensor,
        device: torch.device,
    ) -> tuple[rule.ChunkPlan | None, None]:
        """The plan, in the place of the Triton kernels' chunk indices (padding rows at the end have no tokens)."""
        lengths = [length for length in prefill_query_start_loc_cpu.diff().tolist() if length]
        return self._plan_chunks(lengths), None

    def _plan_chunks(self, lengths: list[int]) -> rule.ChunkPlan:
        return rule.plan_chunks(lengths, self._kernel, self._device)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        num_accepted_tokens: torch.Tensor | None = None,
        num_decode_draft_tokens_cpu: torch.Tensor | None = None,
        fast_build: bool = False,
    ) -> GDNAttentionMetadata:
        """num_accepted_tokens [R]: of each sequence's last step, with the one that was sampled after the drafts.

        num_decode_draft_tokens_cpu [R]: drafts among the tokens of this step, -1 for a sequence that prefills.
        """
        states = getattr(common_attn_metadata, "states", None)
        if states is not None:
            return self._planned(common_attn_metadata, states)
        drafts = num_decode_draft_tokens_cpu
        if drafts is None or not self.use_spec_decode or not bool((drafts >= 0).any()):
            return super().build(common_prefix_len, common_attn_metadata)
        common = common_attn_metadata
        lengths = common.query_start_loc_cpu.diff()
        slots = mamba_get_block_table_tensor(
            common.block_table_tensor,
            common.seq_lens,
            self.kv_cache_spec,
            self.vllm_config.cache_config.mamba_cache_mode,
        )[:, : self.num_spec + 1]
        read = slots.gather(1, (num_accepted_tokens - 1).to(torch.int64).unsqueeze(1)).squeeze(1)
        decodes, prefills = drafts >= 0, (drafts < 0) & (lengths > 0)
        longest = int(lengths[decodes].max())
        if not bool(prefills.any()) and bool((lengths[decodes] == longest).all()):
            return self._metadata(common, self._uniform(read, slots, longest), decodes, lengths)
        return self._mixed(common, read, slots, decodes, prefills, lengths)

    def _planned(self, common: CommonAttentionMetadata, states: HostStates) -> GDNAttentionMetadata:
        """Metadata of a step whose slots the host knows: without arithmetic on the device."""
        lengths = common.query_start_loc_cpu.diff().numpy()
        begun = common.seq_lens_cpu_upper_bound.numpy() > lengths
        if states.drafts is None or not (states.drafts >= 0).any():
            return self._planned_without_drafts(common, states, lengths, begun)
        decodes, prefills = states.drafts >= 0, (states.drafts < 0) & (lengths > 0)
        longest = int(lengths[decodes].max())
        if not prefills.any() and (lengths[decodes] == longest).all():
            drafted = Drafted(longest, states.read_on_device, states.written_on_device)
            return self._metadata(common, drafted, torch.from_numpy(decodes), torch.from_numpy(lengths))
        return self._planned_mixed(common, states, decodes, prefills, lengths, begun)

    def _planned_without_drafts(
        self, common: CommonAttentionMetadata, states: HostStates, lengths: np.ndarray, begun: np.ndarray
    ) -> GDNAttentionMetadata:
        """Sequences of one token that go on from a state come first; from the first other one on, all prefill."""
        others = np.flatnonzero((lengths > 1) | ((lengths == 1) & ~begun))
        metadata = GDNAttentionMetadata(
            num_prefills=0,
            num_prefill_tokens=0,
            num_decodes=len(lengths),
            num_decode_tokens=len(lengths),
            num_spec_decodes=0,
            num_spec_decode_tokens=0,
            num_actual_tokens=common.num_actual_tokens,
            non_spec_state_indices_tensor=states.read_on_device,
        )
        if not len(others):
            return metadata
        decodes = int(others[0])
        prefills = lengths[decodes:]
        prefills = prefills[: int((prefills > 0).sum())]  # padding is at the end
        rows = slice(decodes, decodes + len(prefills))
        metadata.num_decodes = metadata.num_decode_tokens = decodes
        metadata.num_prefills, metadata.num_prefill_tokens = len(prefills), int(prefills.sum())
        metadata.prefill_state_indices = states.read_on_device[rows]
        metadata.prefill_has_initial_state = async_tensor_h2d(torch.from_numpy(begun[rows]), device=self._device)
        metadata.chunk_indices = self._plan_chunks(prefills.tolist())
        return metadata

    def _planned_mixed(
        self,
        common: CommonAttentionMetadata,
        states: HostStates,
        decodes: np.ndarray,
        prefills: np.ndarray,
        lengths: np.ndarray,
        begun: np.ndarray,
    ) -> AscendGdnMetadata:
        """Sequences with drafts, as many as each has, among others that prefill: one upload."""
        starts = common.query_start_loc_cpu[:-1].numpy().astype(np.int64)
        rows, others = np.flatnonzero(decodes), np.flatnonzero(prefills)
        token = np.arange(int(lengths[rows].max()))[:, None]
        grid = (starts[rows] + np.minimum(token, lengths[rows] - 1)).flatten()
        places = np.flatnonzero(token < lengths[rows])
        prompts = [np.arange(starts[row], starts[row] + lengths[row]) for row in others]
        parts = [
            states.read[rows],
            states.written[: len(token), rows].flatten(),
            grid,
            places,
            grid[places],
            states.written[0, others],
            begun[others],
            np.concatenate([*prompts, np.empty(0, np.int64)]),
        ]
        packed = async_tensor_h2d(torch.from_numpy(np.concatenate(parts).astype(np.int64)), device=self._device)
        read, written, tokens, places, targets, slots, has_state, prompt_tokens = packed.split(list(map(len, parts)))
        written = written.view(len(token), len(rows))
        drafted = Drafted(len(token), read, written, tokens, places, targets)
        metadata = self._metadata(common, drafted, torch.from_numpy(decodes), torch.from_numpy(lengths))
        if len(others):
            metadata.num_prefills, metadata.num_prefill_tokens = len(others), len(prompt_tokens)
            metadata.prefill_tokens, metadata.prefill_state_indices = prompt_tokens, slots
            metadata.prefill_has_initial_state = has_state > 0
            metadata.chunk_indices = self._plan_chunks(lengths[others].tolist())
        return metadata

    def _uniform(self, read: torch.Tensor, slots: torch.Tensor, length: int) -> Drafted:
        """All rows alike; those that pad a graph's batch are at the end, and their slot is the null block."""
        rows = slots.shape[0]
        self._read[:rows].copy_(read)
        self._write[:, :rows].copy_(slots.t())
        return Drafted(length, self._read[:rows], self._write[:, :rows])

    def _mixed(
        self,
        common: CommonAttentionMetadata,
        read: torch.Tensor,
        slots: torch.Tensor,
        decodes: torch.Tensor,
        prefills: torch.Tensor,
        lengths: torch.Tensor,
    ) -> AscendGdnMetadata:
        """Sequences with drafts, as many as each has, among others that prefill."""
        starts = common.query_start_loc_cpu[:-1].to(torch.int64)
        rows, others = decodes.nonzero().flatten(), prefills.nonzero().flatten()
        token = torch.arange(int(lengths[rows].max())).unsqueeze(1)
        grid = starts[rows] + torch.minimum(token, lengths[rows] - 1)
        places = (token < lengths[rows]).flatten().nonzero().flatten()
        ends = starts + lengths
        ranges = [torch.arange(int(starts[row]), int(ends[row])) for row in others]
        prefill_tokens = torch.cat(ranges) if ranges else others
        # Exact: only sequences that decode may have fewer tokens than the host believes.
        begun = (common.seq_lens_cpu_upper_bound - lengths)[others] > 0
        parts = (rows, grid.flatten(), places, grid.flatten()[places], others, prefill_tokens, begun.to(torch.int64))
        packed = async_tensor_h2d(torch.cat(parts), device=self._device)
        rows_, tokens, places, targets, others_, prefill_tokens, begun_ = packed.split([len(part) for part in parts])
        write = slots.index_select(0, rows_).t().to(torch.int64).contiguous()
        drafted = Drafted(len(token), read.index_select(0, rows_).to(torch.int64), write, tokens, places, targets)
        metadata = self._metadata(common, drafted, decodes, lengths)
        if len(others):
            metadata.num_prefills = len(others)
            metadata.num_prefill_tokens = len(prefill_tokens)
            metadata.prefill_tokens = prefill_tokens
            metadata.prefill_state_indices = slots[:, 0].index_select(0, others_)
            metadata.prefill_has_initial_state = begun_ > 0
            metadata.chunk_indices = self._plan_chunks(lengths[others].tolist())
        return metadata

    @staticmethod
    def _metadata(
        common: CommonAttentionMetadata, drafted: Drafted, decodes: torch.Tensor, lengths: torch.Tensor
    ) -> AscendGdnMetadata:
        return AscendGdnMetadata(
            num_prefills=0,
            num_prefill_tokens=0,
            num_decodes=0,
            num_decode_tokens=0,
            num_spec_decodes=int(decodes.sum()),
            num_spec_decode_tokens=int(lengths[decodes].sum()),
            num_actual_tokens=common.num_actual_tokens,
            drafted=drafted,
        )


class AscendGdnBackend(GDNAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[AscendGdnMetadataBuilder]:
        return AscendGdnMetadataBuilder
