"""What the attention of every layer needs to know of a step, worked out once a step from host copies.

Nothing here reads device memory back: lengths come from the scheduler's own arrays, and what the operators read on the
device is in buffers whose addresses never change, so that a captured graph sees each step's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionCGSupport, AttentionMetadata, AttentionMetadataBuilder

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.kv_cache_interface import AttentionSpec


class Phase(Enum):
    """The kind of a batch, which decides the operator."""

    PREFILL = auto()  # every request starts in this step: keys and values are all at hand
    DECODE = auto()  # every request has one token
    MIXED = auto()  # anything else: chunks of prompts, prompts after a cached prefix, speculated tokens


@dataclass
class AscendMetadata(AttentionMetadata):
    """One step's attention inputs, shared by the layers of a KV cache group. R requests, T tokens with padding."""

    phase: Phase
    num_tokens: int
    query_lens: torch.Tensor  # [R] int32, host
    seq_lens_host: torch.Tensor  # [R] int32, host: cached and new tokens; an upper bound under speculation
    seq_lens: torch.Tensor  # [R] int32, device
    block_table: torch.Tensor  # [R, blocks] int32, device
    slot_mapping: torch.Tensor  # [T] int32, device; negative for padding
    causal: bool
    window_mask: torch.Tensor | None = None  # device, where a sliding window cuts and the operators take it as a mask
    long_mask: torch.Tensor | None = None  # device: the causal one, where keys are more than a fixed mask serves
    shared: dict[Any, Any] = field(default_factory=dict)  # what layers derive from this once and use again

    @cached_property
    def cumulative_query_lens(self) -> list[int]:
        """End of each request's tokens; padded rows of a decode graph hold one token each."""
        if self.phase is Phase.DECODE:
            return list(range(1, self.num_tokens + 1))
        return self._row_lens.cumsum(0).tolist()

    @cached_property
    def _row_lens(self) -> torch.Tensor:
        """[R]: query_lens, with the tokens that only pad a graph's batch in the rows of no request.

        Operators want every token to be in a sequence, and a graph of drafts as many tokens in each as it was captured
        with; padding that does not come to that is in the last row.
        """
        padding = self.num_tokens - int(self.query_lens.sum())
        if padding == 0 or self.query_lens[-1] > 0:
            return self.query_lens
        lens, empty = self.query_lens.clone(), self.query_lens == 0
        if padding == int(lens[0]) * int(empty.sum()):
            lens[empty] = lens[0]
        else:
            lens[-1] = padding
        return lens

    @cached_property
    def uniform_spans(self) -> list[tuple[slice, slice]]:
        """(requests, tokens) of parts of the batch, runs of requests that have as many tokens each."""
        if self.phase is Phase.DECODE:
            return [(slice(0, self.num_tokens), slice(0, self.num_tokens))]
        parts: list[tuple[slice, slice]] = []
        start = 0
        previous = None
        for request, length in enumerate(self._row_lens.tolist()):
            requests, tokens = slice(request, request + 1), slice(start, start + length)
            if parts and length == previous:
                requests, tokens = slice(parts[-1][0].start, requests.stop), slice(parts[-1][1].start, tokens.stop)
                parts.pop()
            if length:
                parts.append((requests, tokens))
            previous = length
            start += length
        return parts

    @cached_property
    def whole_prompts(self) -> list[tuple[slice, AscendMetadata]]:
        """(tokens, their metadata) of runs of requests that start in this step; none in a batch of the decode kind."""
        if self.phase is Phase.DECODE:
            return []
        parts: list[tuple[slice, list[int]]] = []
        start, beside = 0, False
        for length, total in zip(self.query_lens.tolist(), self.seq_lens_host.tolist(), strict=True):
            if whole := 0 < length == total:
                if not beside:
                    parts.append((slice(start, start), []))
                tokens, lengths = parts[-1]
                parts[-1] = slice(tokens.start, start + length), [*lengths, length]
            start, beside = start + length, whole
        return [(tokens, self._prompts_of(lengths)) for tokens, lengths in parts]

    def _prompts_of(self, lengths: list[int]) -> AscendMetadata:
        lens = torch.tensor(lengths, dtype=torch.int32)
        tokens = sum(lengths)
        return replace(self, phase=Phase.PREFILL, query_lens=lens, seq_lens_host=lens, num_tokens=tokens, shared={})

    @cached_property
    def kv_lens(self) -> list[int]:
        """Keys of each request; of a row of padding as many as it has tokens, because operators take no empty row."""
        if self.phase is Phase.DECODE:
            return self.seq_lens_host.clamp(min=1).tolist()
        return torch.maximum(self.seq_lens_host, self._row_lens).clamp(min=1).tolist()


def phase_of(max_query_len: int, query_lens: torch.Tensor, seq_lens: torch.Tensor) -> Phase:
    """The phase of a batch from its host lengths; rows of padding have no query and do not count."""
    if max_query_len == 1:
        return Phase.DECODE
    new = query_lens > 0
    return Phase.PREFILL if torch.equal(query_lens[new], seq_lens[new]) else Phase.MIXED


class AscendMetadataBuilder(AttentionMetadataBuilder[AscendMetadata]):
    """Builds AscendMetadata; one builder for each KV cache group."""

    # Uniform batches: plain decode, and decode with a fixed number of speculated tokens.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.UNIFORM_BATCH

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._slots = torch.full(
            (vllm_config.scheduler_config.max_num_batched_tokens,), -1, dtype=torch.int32, device=device
        )

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMetadata:
        common = common_attn_metadata
        starts = common.query_start_loc_cpu
        query_lens = starts[1:] - starts[:-1]
        seq_lens_host = common.seq_lens_cpu_upper_bound
        if seq_lens_host is None:
            raise RuntimeError("Report this with the model's name: vLLM gave attention no lengths on the host.")
        return AscendMetadata(
            phase=phase_of(common.max_query_len, query_lens, seq_lens_host),
            num_tokens=common.num_actual_tokens,
            query_lens=query_lens,
            seq_lens_host=seq_lens_host,
            seq_lens=common.seq_lens,
            block_table=self._block_table(common.block_table_tensor),
            slot_mapping=self._slot_mapping(common.slot_mapping[: common.num_actual_tokens]),
            causal=bool(common.causal),
        )

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> AscendMetadata:
        """Metadata of a batch to capture; its dummy requests look like new ones, those of its replays have a past."""
        metadata = super().build_for_cudagraph_capture(common_attn_metadata)
        if metadata.phase is Phase.PREFILL:
            metadata.phase = Phase.MIXED
        return metadata

    def _block_table(self, block_table: torch.Tensor) -> torch.Tensor:
        """The block table as the operators of this chip number blocks."""
        return block_table

    def _slot_mapping(self, slots: torch.Tensor) -> torch.Tensor:
        """Slots as int32, which the operators want, in a buffer that keeps its address."""
        if slots.dtype == torch.int32:
            return slots
        return self._slots[: slots.shape[0]].copy_(slots)
