"""Rotary position embedding: cosines and sines gathered once a step, applied to query and key in one operator.

op-plugin's own `_npu_rotary_embedding` is avoided: it gathers in every layer, and keeps the table of the first module
it ever sees for the whole process, so a second table (another base, a draft model) would silently be the first.
"""

from __future__ import annotations

import torch
import torch_npu
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.dynamic_ntk_alpha_rope import DynamicNTKAlphaRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.dynamic_ntk_scaling_rope import DynamicNTKScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.linear_scaling_rope import LinearScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.llama3_rope import Llama3RotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.llama4_vision_rope import Llama4VisionRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.ntk_scaling_rope import NTKScalingRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.yarn_scaling_rope import YaRNScalingRotaryEmbedding

from ascend_facts.chips import ChipSpec
from ascend_plugin import detection

# Those that differ from the base class in the table alone, not in how it is applied.
REPLACED = (
    RotaryEmbedding,
    DynamicNTKAlphaRotaryEmbedding,
    DynamicNTKScalingRotaryEmbedding,
    LinearScalingRotaryEmbedding,
    Llama3RotaryEmbedding,
    NTKScalingRotaryEmbedding,
    YaRNScalingRotaryEmbedding,
)


class AscendRotary:
    """Mixed into vLLM's rotary classes."""

    _tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward_oot(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Query [T, heads * size] and key [T, kv heads * size] rotated by positions [T], perhaps in place."""
        if key is None or positions.dim() != 1 or self.rotary_dim != self.head_size:
            return self.forward_native(positions, query, key)
        chip = detection.current_chip()
        together = self._takes_both(query.shape[-1] + key.shape[-1], chip)
        if not together and not chip.has_rotary_mul:
            return self.forward_native(positions, query, key)
        cos, sin = self._cos_sin(positions, query.dtype)
        if not together:
            return self._rotate_one(query, cos, sin), self._rotate_one(key, cos, sin)
        tokens = positions.shape[0]
        if not chip.forms.rotary_on_views:
            query, key = query.contiguous(), key.contiguous()
        torch_npu.npu_apply_rotary_pos_emb(
            query.view(1, tokens, -1, self.head_size),
            key.view(1, tokens, -1, self.head_size),
            cos,
            sin,
            layout="BSND",
            rotary_mode=self._mode,
        )
        return query, key

    @property
    def _mode(self) -> str:
        return "half" if self.is_neox_style else "interleave"

    def _takes_both(self, width: int, chip: ChipSpec) -> bool:
        """Whether the operator for query and key, together `width` wide, is right here.

        It computes "half" where it does not know another mode, and fails where a token's heads exceed its memory.
        """
        known = self.head_size in chip.rotary_head_sizes and self._mode in chip.forms.rotary_modes
        return known and width <= chip.forms.rotary_heads * self.head_size

    def _rotate_one(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x [T, heads * size] rotated by the operator that takes query or key, of any size below 896."""
        return torch_npu.npu_rotary_mul(x.view(1, x.shape[0], -1, self.head_size), cos, sin, self._mode).view(x.shape)

    def _cos_sin(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [1, T, 1, size] of this step's positions; every layer of a forward pass shares them.

        dtype: of what is rotated, which the operators want theirs to be; gpt-oss makes its tables in float32.
        """
        if not is_forward_context_available():
            return self._gather(positions, dtype)
        shared = get_forward_context().additional_kwargs
        slot = ("rotary", id(self), positions.data_ptr())
        if slot not in shared:
            shared[slot] = self._gather(positions, dtype)
        return shared[slot]

    def _gather(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        if self._tables is None or self._tables[0].dtype != dtype:
            cos, sin = self.cos_sin_cache.to(dtype).chunk(2, dim=-1)
            spread = (
                (lambda half: half.repeat(1, 2)) if self.is_neox_style else (lambda half: half.repeat_interleave(2, 1))
            )
            # Not buffers: they are a copy of cos_sin_cache in the operator's form.
            object.__setattr__(self, "_tables", (spread(cos).contiguous(), spread(sin).contiguous()))
        return tuple(table.index_select(0, positions)[None, :, None] for table in self._tables)


class AscendLlama4VisionRotary(Llama4VisionRotaryEmbedding):
    """Llama 4's tower turns pairs by complex numbers, for which chips have few operators: here by real ones."""

    _parts: tuple[torch.Tensor, torch.Tensor] | None = None

    def _compute_cos_sin_cache(self) -> torch.Tensor:
        with torch.device("cpu"):  # complex
            cache: torch.Tensor = super()._compute_cos_sin_cache()
        return cache

    def forward_oot(
        self, query: torch.Tensor, key: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Query and key [pictures, T, heads, size], the pairs beside one another turned by their places' angles."""
        cos, sin = self._parts or self._make_parts(query.device)
        return self._turn(query, cos, sin), None if key is None else self._turn(key, cos, sin)

    def _make_parts(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [1, T, 1, size / 2], no buffers: a copy of cos_sin_cache."""
        cache = self.cos_sin_cache.cpu().view(1, self.cos_sin_cache.shape[0], 1, -1)
        parts = cache.real.contiguous().to(device), cache.imag.contiguous().to(device)
        object.__setattr__(self, "_parts", parts)
        return parts

    @staticmethod
    def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return turned.flatten(-2).type_as(x)


def register() -> None:
    for base in REPLACED:
        if base.__name__ not in op_registry_oot:
            RotaryEmbedding.register_oot(type(f"Ascend{base.__name__}", (AscendRotary, base), {}), name=base.__name__)
    if (name := Llama4VisionRotaryEmbedding.__name__) not in op_registry_oot:
        Llama4VisionRotaryEmbedding.register_oot(AscendLlama4VisionRotary, name=name)
