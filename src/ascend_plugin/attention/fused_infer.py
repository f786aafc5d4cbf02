"""Attention of Ascend 910B and later: FusedInferAttentionScore over a paged cache, for prefill and decode alike.

Lengths are host-side arguments of the operator. In a captured graph they are refreshed before the graph reaches the
operator (see graph_wrapper), so that a replay never computes with the lengths of the step it was captured in.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch_npu
from vllm.forward_context import get_forward_context

from ascend_plugin import detection
from ascend_plugin.attention.base import AscendAttention, AscendBackend
from ascend_plugin.attention.masks import COMPRESSED_SIZE, effective_window, last_token_window_mask
from ascend_plugin.attention.metadata import AscendMetadata, AscendMetadataBuilder
from ascend_plugin.graphs import wrapper

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.kv_cache_interface import AttentionSpec, KVCacheSpec

SPARSE_NONE = 0
SPARSE_CAUSAL = 3  # right-aligned causal mask, given as the compressed 2048 x 2048 pattern
SPARSE_BAND = 4  # a band of pre_tokens and next_tokens around the diagonal: sliding window
UNLIMITED = 2147483647
# Head sizes that sequences of different lengths can be packed with (layout TND, CheckInputShapeWhenLayoutIsTND in
# ops-transformer); with any other, each call takes sequences of one length (layout BSH).
PACKED_HEAD_SIZES = (64, 128, 192)


class FusedInferBackend(AscendBackend):
    """The attention backend of Ascend 910B, 910C (A3) and 950."""

    supported_dtypes = [torch.float16, torch.bfloat16]  # noqa: RUF012

    @staticmethod
    def get_impl_cls() -> type[FusedInferAttention]:
        return FusedInferAttention

    @staticmethod
    def get_builder_cls() -> type[HalfPageMetadataBuilder]:
        return HalfPageMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: KVCacheSpec | None = None) -> list[int]:
        return list(detection.current_chip().kv_block_sizes)


class HalfPageMetadataBuilder(AscendMetadataBuilder):
    """Numbers blocks and slots in half-pages (see kv_cache.split_pages), in buffers that keep their addresses.

    Makes the mask of a sliding window too, for heads that cannot be packed: with one token a sequence the operator
    knows no band, and takes a mask of [sequences, keys] instead.
    """

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._rows = vllm_config.scheduler_config.max_num_seqs
        self._tables: torch.Tensor | None = None
        self._block_size = kv_cache_spec.block_size
        window = effective_window(kv_cache_spec, vllm_config.model_config.max_model_len)
        self._window = window if kv_cache_spec.head_size not in PACKED_HEAD_SIZES else None
        self._hidden: torch.Tensor | None = None
        compressed_mask(device)  # a capture could not make it

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> AscendMetadata:
        metadata = super().build(common_prefix_len, common_attn_metadata, fast_build)
        if self._window is not None:
            requests, blocks = metadata.block_table.shape
            if self._hidden is None:
                shape = (self._rows, blocks * self._block_size)
                self._hidden = torch.empty(shape, dtype=torch.bool, device=self.device)
            metadata.window_mask = self._hidden[:requests]
            last_token_window_mask(metadata.seq_lens, self._window, metadata.window_mask)
        return metadata

    def _block_table(self, block_table: torch.Tensor) -> torch.Tensor:
        if self._tables is None or self._tables.shape[1] != block_table.shape[1]:
            self._tables = block_table.new_zeros((self._rows, block_table.shape[1]))
        rows = self._tables[: block_table.shape[0]]
        return torch.mul(block_table, 2, out=rows)

    def _slot_mapping(self, slots: torch.Tensor) -> torch.Tensor:
        # slot // size * 2 * size + slot % size; padding (-1) becomes -1 - size and stays negative.
        slots = slots.to(torch.int32)
        whole_blocks = torch.div(slots, self._block_size, rounding_mode="floor") * self._block_size
        return torch.add(slots, whole_blocks, out=self._slots[: slots.shape[0]])


@cache
def compressed_mask(device: torch.device) -> torch.Tensor:
    """[2048, 2048] int8: 1 above the diagonal, where a query must not see a key."""
    return torch.ones((COMPRESSED_SIZE, COMPRESSED_SIZE), dtype=torch.int8).triu_(1).to(device)


class GraphWorkspace:
    """The scratch memory of every captured launch: asked for once a shape, at its maximum, and never given back.

    A launch without it takes a block from the allocator that is free again at once, while the graph keeps its address;
    an update, on another stream, takes another one, larger as contexts grow. Launches of graphs follow one another, so
    that all of them share one block.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple, int] = {}
        self._held: list[torch.Tensor] = []  # a graph that was captured with a smaller one reads it in each replay

    def __call__(self, tensors: tuple[torch.Tensor, ...], arguments: dict[str, Any]) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        table = arguments["block_table"]
        scalars = [value for value in arguments.values() if isinstance(value, int | str)]
        shape = (*shapes, tensors[0].dtype, tuple(table.shape), arguments["atten_mask"] is None, *scalars)
        if shape not in self._sizes:
            longest = [table.shape[1] * arguments["block_size"]] * table.shape[0]
            asked = torch_npu._npu_fused_infer_attention_score_get_max_workspace(
                *tensors, actual_seq_lengths_kv=longest, **arguments
            )
            self._sizes[shape] = asked.numel()
            if not self._held or self._held[-1].numel() < asked.numel():
                self._held.append(asked)
        return next(held for held in self._held if held.numel() >= self._sizes[shape])


graph_workspace = GraphWorkspace()


class FusedInferAttention(AscendAttention):
    """One layer's attention on Ascend 910B and later."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unused_lse: torch.Tensor | None = None

    def attend(self, layer, query, new, kv_cache, metadata: AscendMetadata, out: torch.Tensor) -> None:
        if wrapper.is_recording():
            wrapper.capture_updatable(self._task(layer.layer_name, query, kv_cache, out))
        else:
            self._attend(query, kv_cache, metadata, out)

    def _task(self, name: str, query: torch.Tensor, kv_cache: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor):
        """The operator as a task of a graph: same tensors, lengths of whatever step is current when it is called."""
        query, out = torch_npu._C._weak_ref_tensor(query), torch_npu._C._weak_ref_tensor(out)

        scratch: list[torch.Tensor] = []

        def launch() -> None:
            self._attend(query, kv_cache, get_forward_context().attn_metadata[name], out, scratch)

        return launch

    def _attend(
        self, query, kv_cache, metadata: AscendMetadata, out: torch.Tensor, scratch: list[torch.Tensor] | None = None
    ) -> None:
        """Launch the operator; scratch keeps the workspace of a graph's task, which its first launch puts there.

        Raises RuntimeError where a task would be several launches: an update must not change their number.
        """
        if self.head_size in PACKED_HEAD_SIZES:
            lengths, keys = metadata.cumulative_query_lens, metadata.kv_lens
            mask = compressed_mask(query.device), self._sparse_mode
            self._launch("TND", query, kv_cache, lengths, keys, metadata.block_table, mask, out, scratch)
            return
        if scratch is not None and len(metadata.uniform_spans) != 1:
            raise RuntimeError(
                "Start again with --enforce-eager and report this: a batch whose sequences have "
                f"{len(metadata.uniform_spans)} different numbers of tokens came to a captured graph."
            )
        for requests, tokens in metadata.uniform_spans:
            count = requests.stop - requests.start
            length = (tokens.stop - tokens.start) // count
            shape = (count, length, self.num_heads * self.head_size)
            keys, blocks = metadata.kv_lens[requests], metadata.block_table[requests]
            part, part_out = query[tokens].reshape(shape), out[tokens].view(shape)
            mask = compressed_mask(query.device), self._sparse_mode
            if length == 1:  # the operator reads a mask as [sequences, keys] then
                hidden = metadata.window_mask if self.sliding_window is not None else None
                mask = None if hidden is None else hidden[requests], SPARSE_NONE
            self._launch("BSH", part, kv_cache, [length] * count, keys, blocks, mask, part_out, scratch)

    @property
    def _sparse_mode(self) -> int:
        return SPARSE_CAUSAL if self.sliding_window is None else SPARSE_BAND

    def _launch(
        self,
        layout: str,
        query,
        kv_cache,
        lengths: list[int],
        keys: list[int],
        block_table,
        mask: tuple[torch.Tensor | None, int],  # and its sparse mode
        out,
        scratch: list[torch.Tensor] | None,
    ) -> None:
        blocks, block_size = kv_cache[0].shape[:2]
        tensors = query, *(cache.view(blocks, block_size, -1) for cache in kv_cache)
        arguments = {
            "atten_mask": mask[0],
            "actual_seq_lengths": lengths,
            "block_table": block_table,
            "num_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "scale": self.scale,
            "input_layout": layout,
            "block_size": block_size,
            "sparse_mode": mask[1],
            "pre_tokens": UNLIMITED if self.sliding_window is None else self.sliding_window - 1,
            "next_tokens": 0 if self.sliding_window is not None else UNLIMITED,
        }
        if scratch is not None and not scratch:
            scratch.append(graph_workspace(tensors, arguments))
        results = {"workspace": scratch[0] if scratch else None, "out": [out, self._lse(query)]}
        torch_npu.npu_fused_infer_attention_score.out(*tensors, actual_seq_lengths_kv=keys, **arguments, **results)

    def _lse(self, query: torch.Tensor) -> torch.Tensor:
        """The operator's second output, unused without softmax_lse_flag: one value."""
        if self._unused_lse is None:
            self._unused_lse = torch.empty(1, dtype=torch.float32, device=query.device)
        return self._unused_lse

    def encode(self, query, key, value, metadata: AscendMetadata, out: torch.Tensor) -> None:
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
