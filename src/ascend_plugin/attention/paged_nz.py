"""Attention of Ascend 310P: ATB operators on a KV cache in FRACTAL_NZ.

Prefill without a cached prefix reads the fresh keys and values (SelfAttention with the compressed mask); decode reads
the cache (PagedAttention with lengths on the device, so that graphs need no update); everything else goes through
PagedAttention's "splitfuse" form. Masks are 2048 x 2048 whatever the context: nothing here grows with its square. Only
a sliding window, which the compressed masks cannot express, takes a mask of [tokens of the step, keys] where it cuts;
decode graphs have one of [tokens, longest sequence].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch_npu
from vllm.config import CUDAGraphMode

from ascend_plugin import detection
from ascend_plugin.attention import masks
from ascend_plugin.attention.base import AscendAttention, AscendBackend
from ascend_plugin.attention.metadata import AscendMetadata, AscendMetadataBuilder, Phase
from ascend_plugin.ops.formats import FRACTAL_NZ, NZ_COLUMNS, zero_memory
from ascend_plugin.ops.rows import write_rows

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec

MASK_TYPE_PREFILL = 3  # SelfAttentionParam::MASK_TYPE_NORM_COMPRESS
MASK_TYPE_PAGED = 5  # PagedAttentionParam::MASK_TYPE_NORM_COMPRESS


class PagedNzBackend(AscendBackend):
    """Ascend 310P's attention backend."""

    supported_dtypes = [torch.float16, torch.float32]  # noqa: RUF012  the cache is float16 in both cases

    @staticmethod
    def get_impl_cls() -> type[PagedNzAttention]:
        return PagedNzAttention

    @staticmethod
    def get_builder_cls() -> type[WindowMetadataBuilder]:
        return WindowMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: KVCacheSpec | None = None) -> list[int]:
        chip = detection.current_chip()
        head_size = getattr(kv_cache_spec, "head_size", None) or _head_size_of_model()
        return [chip.kv_block_size(head_size)] if head_size else list(chip.kv_block_sizes)


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


def allocate_plain_cache(
    num_blocks: int, block_size: int, heads: int, head_size: int, device: torch.device
) -> torch.Tensor:
    """The same for layers that no ATB operator reads: [num_blocks + 1, block_size, heads, head_size], rows as they are.

    The last block is written where a slot is negative (padding), and never read.
    """
    return torch.zeros((num_blocks + 1, block_size, heads, head_size), dtype=torch.float16, device=device)


class WindowMetadataBuilder(AscendMetadataBuilder):
    """Makes the masks: the fixed ones at start, because a capture cannot; a sliding window's in the steps it cuts."""

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        masks.compressed_prefill_mask(device)
        masks.compressed_paged_mask(device)
        self._longest = vllm_config.model_config.max_model_len
        self._window = masks.effective_window(kv_cache_spec, self._longest)
        served = detection.current_chip().forms.compressed_mask_keys
        self._served = served if served and served < self._longest else None
        self._graph_masks: dict[tuple[int, int], torch.Tensor] = {}  # by rows and window; their addresses stay

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMetadata:
        common = common_attn_metadata
        metadata = super().build(common_prefix_len, common, fast_build)
        replayed = self._may_be_replayed(common)
        if self._window is not None:
            metadata.window_mask = self._mask(metadata, common, replayed, self._window, self._window)
        # Batches to capture are made of sequences that look new; those of their replays have a past.
        if self._served is not None and (
            metadata.phase is Phase.MIXED or (replayed and metadata.phase is Phase.PREFILL)
        ):
            metadata.long_mask = self._mask(metadata, common, replayed, self._longest, self._served)
        return metadata

    def _may_be_replayed(self, common: CommonAttentionMetadata) -> bool:
        """Whether this is a batch of the kind that graphs are captured of."""
        length = common.max_query_len
        if self.vllm_config.compilation_config.cudagraph_mode == CUDAGraphMode.NONE:
            return False
        uniform = common.num_actual_tokens == common.num_reqs * length
        return uniform and length <= self.vllm_config.uniform_decode_query_len

    def _mask(
        self, metadata: AscendMetadata, common: CommonAttentionMetadata, replayed: bool, window: int, above: int
    ) -> torch.Tensor | None:
        """A window's mask: of a batch that may be replayed, in memory that its graph reads; None up to `above` keys."""
        if replayed:
            slot = metadata.num_tokens, window
            if slot not in self._graph_masks:
                self._graph_masks[slot] = masks.empty_decode_mask(metadata.num_tokens, self._longest, self.device)
            masks.decode_window_mask(metadata.seq_lens, common.max_query_len, window, self._graph_masks[slot])
            return self._graph_masks[slot]
        if int(metadata.seq_lens_host.max()) <= above:
            return None
        return masks.window_mask(metadata.query_lens, metadata.seq_lens_host, window, self.device)


class PagedNzAttention(AscendAttention):
    """One layer's attention on Ascend 310P."""

    def write(self, key, value, kv_cache, metadata: AscendMetadata) -> None:
        if self.unfused is None:
            super().write(key, value, kv_cache, metadata)
            return
        # ReshapeAndCache knows FRACTAL_NZ only on this chip.
        rows = [pages.view(-1, *pages.shape[2:]) for pages in kv_cache]
        if "rows to write" not in metadata.shared:
            slots = metadata.slot_mapping
            metadata.shared["rows to write"] = torch.where(slots < 0, rows[0].shape[0] - 1, slots).long()
        for pages, new in zip(rows, (key, value), strict=True):
            write_rows(pages, metadata.shared["rows to write"], new)

    def attend(self, layer, query, new, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> None:
        if self.sliding_window is not None and metadata.window_mask is not None:
            self._masked(query, kv_cache, metadata, metadata.window_mask, out)
        elif metadata.phase is Phase.DECODE:
            self._decode(query, kv_cache, metadata, out)
        elif metadata.phase is Phase.PREFILL and new is not None:
            self._prefill(query, *new, metadata, out)
        elif metadata.long_mask is not None:
            self._masked(query, kv_cache, metadata, metadata.long_mask, out)
        else:
            self._mixed(query, kv_cache, metadata, out)

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
            **self._splitfuse_arguments(query, kv_cache, metadata, out),
            mask=masks.compressed_paged_mask(query.device),
            mask_type=MASK_TYPE_PAGED,
        )

    def _masked(self, query, kv_cache, metadata: AscendMetadata, mask: torch.Tensor, out: torch.Tensor) -> None:
        arguments = self._splitfuse_arguments(query, kv_cache, metadata, out)
        torch_npu._npu_paged_attention_splitfuse(**arguments, mask=mask)

    def _splitfuse_arguments(self, query, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> dict[str, Any]:
        """What both versions of PagedAttention's splitfuse form take, less their masks."""
        return {
            "query": query,
            "key_cache": kv_cache[0],
            "value_cache": kv_cache[1],
            "block_table": metadata.block_table,
            "context_lens": metadata.seq_lens,
            "seq_len": metadata.query_lens,
            "num_kv_heads": self.num_kv_heads,
            "num_heads": self.num_heads,
            "scale_value": self.scale,
            "out": out,
        }

    def encode(self, query, key, value, metadata: AscendMetadata, out: torch.Tensor) -> None:
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
