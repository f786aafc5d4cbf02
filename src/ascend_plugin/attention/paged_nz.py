"""Attention of Ascend 310P: ATB operators on a KV cache in FRACTAL_NZ.

Prefill without a cached prefix reads the fresh keys and values (SelfAttention with the compressed mask); decode reads
the cache (PagedAttention with lengths on the device, so that graphs need no update); everything else goes through
PagedAttention's "splitfuse" form. Masks are 2048 x 2048 whatever the context: nothing here grows with its square.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch_npu
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionType
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.kv_cache_layout import KVCacheLayout

from ascend_plugin import detection
from ascend_plugin.attention import masks
from ascend_plugin.attention.metadata import AscendMetadata, AscendMetadataBuilder, Phase
from ascend_plugin.ops.formats import FRACTAL_NZ, NZ_COLUMNS, zero_memory

if TYPE_CHECKING:
    from vllm.v1.kv_cache_interface import KVCacheSpec

MASK_TYPE_PREFILL = 3  # SelfAttentionParam::MASK_TYPE_NORM_COMPRESS
MASK_TYPE_PAGED = 5  # PagedAttentionParam::MASK_TYPE_NORM_COMPRESS


@register_backend(AttentionBackendEnum.CUSTOM)
class PagedNzBackend(AttentionBackend):
    """Ascend 310P's attention backend."""

    supported_dtypes = [torch.float16]  # noqa: RUF012
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[PagedNzAttention]:
        return PagedNzAttention

    @staticmethod
    def get_builder_cls() -> type[AscendMetadataBuilder]:
        return AscendMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: KVCacheSpec | None = None) -> list[int]:
        chip = detection.current_chip()
        head_size = getattr(kv_cache_spec, "head_size", None) or _head_size_of_model()
        return [chip.kv_block_size(head_size)] if head_size else list(chip.kv_block_sizes)

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        return (KVCacheLayout.LBNHC,)

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in (AttentionType.DECODER, AttentionType.ENCODER_ONLY)


def _head_size_of_model() -> int | None:
    from vllm.config import get_current_vllm_config_or_none

    config = get_current_vllm_config_or_none()
    return config.model_config.get_head_size() if config is not None and config.model_config is not None else None


def allocate_cache(num_blocks: int, block_size: int, heads: int, head_size: int, device: torch.device) -> torch.Tensor:
    """One layer's key or value cache: [num_blocks, heads * head_size / 16, block_size, 16] in FRACTAL_NZ, zeroed."""
    shape = (num_blocks, heads * head_size // NZ_COLUMNS, block_size, NZ_COLUMNS)
    cache = torch_npu.empty_with_format(shape, dtype=torch.float16, device=device, acl_format=FRACTAL_NZ)
    # The operators multiply what is left of a sequence's last block by probability 0, and 0 x NaN is NaN.
    zero_memory(cache)
    return cache


class PagedNzAttention(AttentionImpl[AscendMetadata]):
    """One layer's attention on Ascend 310P."""

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
            raise ValueError("This model's attention (ALiBi or a soft cap on scores) has no operator on Ascend 310P.")
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = scale
        self.num_kv_heads = num_kv_heads or num_heads
        self.sliding_window = sliding_window
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.shares_cache = kv_sharing_target_layer_name is not None

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
        """Attend from query [T, heads, size] to the cache and to key, value [T, kv heads, size]; fills output."""
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
        if attn_metadata.phase is Phase.DECODE:
            self._decode(query, kv_cache, attn_metadata, out)
        elif attn_metadata.phase is Phase.PREFILL and key is not None:
            self._prefill(query, key[:tokens], value[:tokens], attn_metadata, out)
        else:
            self._mixed(query, kv_cache, attn_metadata, out)
        return output

    def _decode(self, query, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> None:
        torch_npu._npu_paged_attention(
            query=query,
            key_cache=kv_cache[0],
            value_cache=kv_cache[1],
            num_kv_heads=self.num_kv_heads,
            num_heads=self.num_heads,
            scale_value=self.scale,
            block_table=metadata.block_table,
            context_lens=metadata.seq_lens,
            out=out,
        )

    def _prefill(self, query, key, value, metadata: AscendMetadata, out: torch.Tensor) -> None:
        torch_npu._npu_flash_attention_v3(
            query=query,
            key=key,
            value=value,
            mask=masks.compressed_prefill_mask(query.device),
            seq_len=metadata.query_lens,
            scale_value=self.scale,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            mask_type=MASK_TYPE_PREFILL,
            out=out,
        )

    def _mixed(self, query, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> None:
        torch_npu._npu_paged_attention_splitfuse_v2(
            query=query,
            key_cache=kv_cache[0],
            value_cache=kv_cache[1],
            block_table=metadata.block_table,
            context_lens=metadata.seq_lens,
            mask=masks.compressed_paged_mask(query.device),
            seq_len=metadata.query_lens,
            num_kv_heads=self.num_kv_heads,
            num_heads=self.num_heads,
            scale_value=self.scale,
            mask_type=MASK_TYPE_PAGED,
            out=out,
        )

    def _encode(self, query, key, value, metadata: AscendMetadata, out: torch.Tensor) -> None:
        torch_npu._npu_flash_attention_unpad(
            query=query,
            key=key,
            value=value,
            seq_len=metadata.query_lens,
            scale_value=self.scale,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            out=out,
        )
