"""Latent attention (MLA): every head reads one vector a token, which is key and value at once.

vLLM's own layer (MLAAttention) brings queries into the latent space, [T, heads, latent + rotary], and the answers out
of it. What lies between is attention of one key head from pages [blocks, block size, latent + rotary], composed of
stock operators as the others without an operator (attention/unfused.py), on every chip. Every token of a step is
computed this way, prompts too: the absorbed form of DeepSeek-V2 (arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.attention.backend import AttentionType, MLAAttentionImpl

from ascend_plugin import detection
from ascend_plugin.attention.base import AscendBackend
from ascend_plugin.attention.metadata import AscendMetadata, AscendMetadataBuilder
from ascend_plugin.attention.unfused import UnfusedPagedAttention
from ascend_plugin.ops.rows import write_rows

if TYPE_CHECKING:
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.kv_cache_interface import KVCacheSpec


@dataclass
class LatentMetadata(AscendMetadata):
    """With what vLLM's layer asks: to it, all tokens are decoded."""

    prefill = None
    num_prefills = 0

    @property
    def num_actual_tokens(self) -> int:
        return self.num_tokens

    num_decode_tokens = num_actual_tokens

    @property
    def num_decodes(self) -> int:
        return int(self.block_table.shape[0])

    @property
    def decode(self) -> LatentMetadata:
        return self


class LatentMetadataBuilder(AscendMetadataBuilder):
    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> LatentMetadata:
        built = super().build(common_prefix_len, common_attn_metadata, fast_build)
        return LatentMetadata(**{field.name: getattr(built, field.name) for field in fields(AscendMetadata)})


class LatentBackend(AscendBackend):
    """The attention backend of models with a latent cache, on every chip."""

    supported_dtypes = [torch.float16, torch.bfloat16, torch.float32]  # noqa: RUF012

    @classmethod
    def is_mla(cls) -> bool:
        return True

    @classmethod
    def supports_sink(cls) -> bool:
        return False

    @staticmethod
    def get_impl_cls() -> type[LatentAttention]:
        return LatentAttention

    @staticmethod
    def get_builder_cls() -> type[LatentMetadataBuilder]:
        return LatentMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: KVCacheSpec | None = None) -> list[int]:
        return list(detection.current_chip().kv_block_sizes)


class LatentAttention(MLAAttentionImpl[LatentMetadata]):
    """One layer's attention in the latent space."""

    is_sparse = False

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None,
        sliding_window: int | None,
        kv_cache_dtype: str,
        logits_soft_cap: float | None,
        attn_type: str,
        kv_sharing_target_layer_name: str | None,
        kv_lora_rank: int,
        indexer: object | None = None,
        **others: Any,
    ) -> None:
        """Raises ValueError for what this does not compute."""
        if indexer is not None or others.get("topk_indices_buffer") is not None:
            raise ValueError(
                "This model's sparse attention (DeepSeek V3.2, GLM-5) does not run on Ascend here yet: use DeepSeek "
                "V3.1, or another model without an indexer."
            )
        if attn_type != AttentionType.DECODER or kv_sharing_target_layer_name is not None:
            raise ValueError("Latent attention of encoders, or with a shared cache, does not run on Ascend here yet.")
        self.kv_lora_rank = kv_lora_rank
        self.unfused = UnfusedPagedAttention(
            num_heads, 1, head_size, scale, sliding_window, logits_soft_cap, alibi_slopes, value_size=kv_lora_rank
        )

    def reserve_workspace(self) -> None:
        self.unfused.reserve(torch.device("npu", torch.npu.current_device()))

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
        skip_scale: bool = False,
    ) -> None:
        """Write latent and rotary part [T, .] to their slots; padding (a negative slot) goes to the null block."""
        if kv_cache.numel() == 0:
            return
        slots = slot_mapping.flatten().clamp(min=0).long()
        latent = torch.cat([kv_c_normed, k_pe.squeeze(1)], dim=-1)[: slots.shape[0]]
        write_rows(kv_cache.flatten(0, 1), slots, latent.to(kv_cache.dtype))

    def forward_mqa(
        self,
        q: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: LatentMetadata,
        layer: Any,
    ) -> tuple[torch.Tensor, None]:
        query = torch.cat(q, dim=-1) if isinstance(q, tuple) else q
        pages = kv_c_and_k_pe_cache.unsqueeze(2)
        out = query.new_empty((*query.shape[:2], self.kv_lora_rank))
        self.unfused.attend(query, (pages, pages), attn_metadata, out)
        return out, None


class NoPrefillBackend:
    """In the place of vLLM's backends for prompts, whose kernels are CUDA's: prompts take the way of decoding."""

    def __init__(self, **_: Any) -> None: ...

    @staticmethod
    def get_name() -> str:
        return "the latent form"
