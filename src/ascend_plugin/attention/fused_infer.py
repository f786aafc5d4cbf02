"""Attention of Ascend 910B and later: FusedInferAttentionScore over a paged cache, for prefill and decode alike.

Lengths are host-side arguments of the operator. In a captured graph they are refreshed before the graph reaches the
operator (see graph_wrapper), so that a replay never computes with the lengths of the step it was captured in.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import torch_npu
from vllm.forward_context import get_forward_context
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionType
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.kv_cache_layout import KVCacheLayout

from ascend_plugin import detection, graph_wrapper
from ascend_plugin.attention.masks import COMPRESSED_SIZE
from ascend_plugin.attention.metadata import AscendMetadata, AscendMetadataBuilder

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec

SPARSE_NONE = 0
SPARSE_CAUSAL = 3  # right-aligned causal mask, given as the compressed 2048 x 2048 pattern
SPARSE_BAND = 4  # a band of pre_tokens and next_tokens around the diagonal: sliding window
UNLIMITED = 2147483647
# Head sizes that sequences of different lengths can be packed with (layout TND, CheckInputShapeWhenLayoutIsTND in
# ops-transformer); with any other, each call takes sequences of one length (layout BSH).
PACKED_HEAD_SIZES = (64, 128, 192)


@register_backend(AttentionBackendEnum.CUSTOM)
class FusedInferBackend(AttentionBackend):
    """The attention backend of Ascend 910B, 910C (A3) and 950."""

    supported_dtypes = [torch.float16, torch.bfloat16]  # noqa: RUF012
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[FusedInferAttention]:
        return FusedInferAttention

    @staticmethod
    def get_builder_cls() -> type[HalfPageMetadataBuilder]:
        return HalfPageMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: KVCacheSpec | None = None) -> list[int]:
        return list(detection.current_chip().kv_block_sizes)

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        return (KVCacheLayout.LBNHC,)

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in (AttentionType.DECODER, AttentionType.ENCODER_ONLY)


class HalfPageMetadataBuilder(AscendMetadataBuilder):
    """Numbers blocks and slots in half-pages (see kv_cache.split_pages), in buffers that keep their addresses."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._rows = vllm_config.scheduler_config.max_num_seqs
        self._tables: torch.Tensor | None = None
        self._block_size = kv_cache_spec.block_size

    def _block_table(self, block_table: torch.Tensor) -> torch.Tensor:
        if self._tables is None or self._tables.shape[1] != block_table.shape[1]:
            self._tables = block_table.new_zeros((self._rows, block_table.shape[1]))
        rows = self._tables[: block_table.shape[0]]
        return torch.mul(block_table, 2, out=rows)

    def _slot_mapping(self, slots: torch.Tensor) -> torch.Tensor:
        # slot // size * 2 * size + slot % size; padding (-1) becomes -1 - size and stays negative.
        whole_blocks = torch.div(slots, self._block_size, rounding_mode="floor") * self._block_size
        return self._slots[: slots.shape[0]].copy_(slots + whole_blocks)


@cache
def compressed_mask(device: torch.device) -> torch.Tensor:
    """[2048, 2048] int8: 1 above the diagonal, where a query must not see a key."""
    return torch.ones((COMPRESSED_SIZE, COMPRESSED_SIZE), dtype=torch.int8).triu_(1).to(device)


class FusedInferAttention(AttentionImpl[AscendMetadata]):
    """One layer's attention on Ascend 910B and later."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
    ) -> None:
        if alibi_slopes is not None or logits_soft_cap:
            raise ValueError("This model's attention (ALiBi or a soft cap on scores) has no operator on this chip.")
        if sliding_window is not None and head_size not in PACKED_HEAD_SIZES:
            raise ValueError(f"A sliding window with heads of size {head_size} has no decode operator on this chip.")
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.num_kv_heads = num_kv_heads or num_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.shares_cache = kv_sharing_target_layer_name is not None
        self._unused_lse: torch.Tensor | None = None

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: tuple[torch.Tensor, torch.Tensor],
        attn_metadata: AscendMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from query [T, heads, size] to the cache; key, value [T, kv heads, size] are written to it first."""
        if attn_metadata is None:  # the profile run, before there is a cache
            return output.zero_()
        tokens = attn_metadata.num_tokens
        query, out = query[:tokens], output[:tokens]
        if self.attn_type == AttentionType.ENCODER_ONLY:
            self._encode(query, key[:tokens], value[:tokens], attn_metadata, out)
            return output
        if not self.shares_cache and key is not None:
            torch_npu._npu_reshape_and_cache(
                key[:tokens], value[:tokens], kv_cache[0], kv_cache[1], attn_metadata.slot_mapping[:tokens]
            )
        if graph_wrapper.is_recording():
            graph_wrapper.capture_updatable(self._task(layer.layer_name, query, kv_cache, out))
        else:
            self._attend(query, kv_cache, attn_metadata, out)
        return output

    def _task(self, name: str, query: torch.Tensor, kv_cache: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor):
        """The operator as a task of a graph: same tensors, lengths of whatever step is current when it is called."""
        query, out = torch_npu._C._weak_ref_tensor(query), torch_npu._C._weak_ref_tensor(out)

        def launch() -> None:
            self._attend(query, kv_cache, get_forward_context().attn_metadata[name], out)

        return launch

    def _attend(self, query, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> None:
        if self.head_size in PACKED_HEAD_SIZES:
            lengths, keys = metadata.cumulative_query_lens, metadata.key_lens
            self._launch("TND", query, kv_cache, lengths, keys, metadata.block_table, out)
            return
        for requests, tokens in metadata.rectangles:
            count = requests.stop - requests.start
            length = (tokens.stop - tokens.start) // count
            shape = (count, length, self.num_heads * self.head_size)
            keys, blocks = metadata.key_lens[requests], metadata.block_table[requests]
            part, part_out = query[tokens].reshape(shape), out[tokens].view(shape)
            self._launch("BSH", part, kv_cache, [length] * count, keys, blocks, part_out)

    def _launch(self, layout: str, query, kv_cache, lengths: list[int], keys: list[int], block_table, out) -> None:
        blocks, block_size = kv_cache[0].shape[:2]
        # One token a sequence sees all of its keys; a mask would be read as [sequences, keys] then.
        sees_all = layout == "BSH" and query.shape[1] == 1
        sparse_mode = SPARSE_CAUSAL if self.sliding_window is None else SPARSE_BAND
        torch_npu.npu_fused_infer_attention_score.out(
            query,
            kv_cache[0].view(blocks, block_size, -1),
            kv_cache[1].view(blocks, block_size, -1),
            atten_mask=None if sees_all else compressed_mask(query.device),
            actual_seq_lengths=lengths,
            actual_seq_lengths_kv=keys,
            block_table=block_table,
            num_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            scale=self.scale,
            input_layout=layout,
            block_size=block_size,
            sparse_mode=SPARSE_NONE if sees_all else sparse_mode,
            pre_tokens=UNLIMITED if self.sliding_window is None else self.sliding_window - 1,
            next_tokens=0 if self.sliding_window is not None else UNLIMITED,
            out=[out, self._lse(query)],
        )

    def _lse(self, query: torch.Tensor) -> torch.Tensor:
        """The operator's second output, unused without softmax_lse_flag: one value."""
        if self._unused_lse is None:
            self._unused_lse = torch.empty(1, dtype=torch.float32, device=query.device)
        return self._unused_lse

    def _encode(self, query, key, value, metadata: AscendMetadata, out: torch.Tensor) -> None:
        lengths = metadata.cumulative_query_lens
        torch_npu.npu_fused_infer_attention_score.out(
            query,
            key,
            value,
            actual_seq_lengths=lengths,
            actual_seq_lengths_kv=lengths,
            num_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            scale=self.scale,
            input_layout="TND",
            out=[out, self._lse(query)],
        )
