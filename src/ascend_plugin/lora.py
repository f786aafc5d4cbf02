"""LoRA: the adapters of a batch in two matrix products a layer, whatever adapter each token wants.

The adapters that are loaded lie in slots. A token is multiplied by the A matrices of all slots at once, the ranks of
the slots that are not its own are set to zero, and what is left goes through the B matrices of all slots at once. With
a few slots of a small rank that costs less than sorting tokens by adapter, needs nothing but the matrix unit, and reads
which adapter a token wants on the device, so that it can be captured in a graph.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.forward_context import get_forward_context
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
from vllm.lora.punica_wrapper.utils import convert_mapping
from vllm.utils.torch_utils import async_tensor_h2d

from ascend_plugin.graphs import wrapper


class AscendPunicaWrapper(PunicaWrapperBase):
    """What vLLM's LoRA layers call. T tokens, S slots, rank r; A [S, 1, r, in], B [S, 1, out, r], scaling inside B."""

    def __init__(
        self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **kwargs: Any
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        # int32, because the 310P's vector units fault on sums of int64 (rule int64_add): the embedding adds its rows to
        # token ids, which are int32 too. The padded rows of the sampler are another kernel's.
        self._token_lora_indices, self._sampler_indices, self._embeddings_indices = (
            torch.empty(max_num_batched_tokens, dtype=torch.int32, device=device) for _ in range(3)
        )

    def update_metadata(
        self, mapping: LoRAMapping, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        """Send which adapter each token wants to the device; the host computes it, and nothing waits for the device."""
        tokens, samples, _, embeddings, self.indices_len = convert_mapping(
            mapping, lora_index_to_id, max_loras, vocab_size, torch.device("cpu")
        )
        for buffer, values in (
            (self._token_lora_indices, tokens),
            (self._sampler_indices, samples),
            (self._embeddings_indices, embeddings),
        ):
            async_tensor_h2d(values.to(torch.int32), out=buffer[: len(values)])
        self.no_lora = not any(mapping.index_mapping)

    def _nothing_to_add(self) -> bool:
        """Whether no token wants an adapter; a graph is captured once for such batches and once for the others."""
        if wrapper.is_recording():
            descriptor = get_forward_context().batch_descriptor
            return descriptor is None or not descriptor.has_lora
        return self.no_lora

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """Add to y [T, sum of output_slices], each slice having its own matrices (q, k and v, for one)."""
        if self._nothing_to_add():
            return
        own = _own_slots(self._token_lora_indices[: x.shape[0]], len(lora_a_stacked[0]), x.dtype)
        start = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            y[:, start : start + width] += _expand(_shrink(x, a, scale), own, b)
            start += width

    def add_lora_embedding(self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, **kwargs: Any) -> None:
        """Add to y [T, width] from x [T, r], the rows of A that were looked up in each token's own slot."""
        if self._nothing_to_add():
            return
        own = _own_slots(self._token_lora_indices[: x.shape[0]], len(lora_b_stacked), y.dtype)
        y += _expand(x.to(y.dtype).unsqueeze(1), own, lora_b_stacked)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **kwargs: Any,
    ) -> None:
        """Add to logits y, which have a row for each sampled token only."""
        if self._nothing_to_add():
            return
        own = _own_slots(self._sampler_indices[: x.shape[0]], len(lora_a_stacked), x.dtype)
        y += _expand(_shrink(x, lora_a_stacked, scale), own, lora_b_stacked).to(y.dtype)

    def apply_lora_full_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        weight_stacked: torch.Tensor,
        bias_stacked: torch.Tensor,
        module_enabled: torch.Tensor,
    ) -> None:
        """Replace the rows of y whose adapter has a whole matrix of its own, as the heads of classifiers have."""
        own = _own_slots(self._sampler_indices[: x.shape[0]], len(weight_stacked), x.dtype)
        found = (_shrink(x, weight_stacked, 1.0) * own).sum(dim=1)
        y.copy_(self._select_full_linear_output(y, found, bias_stacked, module_enabled))

    def add_shrink(self, *args: Any, **kwargs: Any) -> None:
        """Used by fully sharded LoRA only, which configuration.py refuses."""
        raise NotImplementedError

    def add_expand(self, *args: Any, **kwargs: Any) -> None:
        """As add_shrink."""
        raise NotImplementedError


def _own_slots(indices: torch.Tensor, slots: int, dtype: torch.dtype) -> torch.Tensor:
    """[T, S, 1]: one in the slot of each token's adapter; nowhere for a token without (index -1)."""
    return (
        (indices.unsqueeze(1) == torch.arange(slots, dtype=indices.dtype, device=indices.device)).to(dtype).unsqueeze(2)
    )


def _shrink(x: torch.Tensor, a: torch.Tensor, scale: float) -> torch.Tensor:
    """x [T, in] through A of every slot: [T, S, r]."""
    slots, _, rank, width = a.shape
    shrunk = torch.nn.functional.linear(x, a.view(slots * rank, width)).view(-1, slots, rank)
    return shrunk if scale == 1.0 else shrunk * scale


def _expand(shrunk: torch.Tensor, own: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """shrunk [T, S or 1, r] through B of each token's own slot: [T, out]."""
    slots, _, width, rank = b.shape
    matrix = b.view(slots, width, rank).permute(0, 2, 1).reshape(slots * rank, width)
    return (shrunk * own).flatten(1) @ matrix
