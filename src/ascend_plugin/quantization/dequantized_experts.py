"""Routed experts of fp8 checkpoints (e4m3; a scale for each matrix or each block), held in the model's dtype.

As linear layers are (see `dequantized`): the bits are loaded as uint8 and become numbers on the host, one expert at a
time. Where a rank's share of a matrix cuts through blocks, vLLM's loader repeats the scales for finer ones.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.oracle.fp8 import refine_fp8_moe_block_shape

from ascend_plugin.ops import moe
from ascend_plugin.quantization import dequantized
from ascend_plugin.quantization.experts import PROJECTIONS, QuantizedExperts, convert_to_unquantized, ignore, register


class DequantizedFp8Experts(QuantizedExperts):
    """fp8 experts until their weights are loaded; plain experts from then on."""

    def __init__(self, quant_config: Any, moe_config: FusedMoEConfig) -> None:
        super().__init__(moe_config)
        self.has_input_scale = quant_config.activation_scheme == "static"
        self.block_size: list[int] | None = quant_config.weight_block_size
        self.weight_scale_refine: tuple[int, int] | None = None  # vLLM's loader asks for it
        finer = None if self.block_size is None else refine_fp8_moe_block_shape(moe_config, self.block_size)
        if finer is not None:
            self.weight_scale_refine = self.block_size[0] // finer[0], self.block_size[1] // finer[1]
            self.block_size = finer
        self.scale_name = "weight_scale" if self.block_size is None else "weight_scale_inv"

    def create_projection(self, layer: Any, name: str, shape: tuple[int, int, int], attributes: dict[str, Any]) -> None:
        """Raises ValueError where the rank's share of a matrix has no whole blocks."""
        experts, outputs, inputs = shape
        if name == "w13":
            self._check_blocks(outputs // 2)
        bits = {**attributes, "weight_loader": dequantized.loading_bits(attributes["weight_loader"])}
        scales = {**attributes, "quant_method": "tensor" if self.block_size is None else "block"}
        by_expert = self._scales_of_expert(name, outputs, inputs)
        register(layer, f"{name}_weight", shape, torch.uint8, bits)
        register(layer, f"{name}_{self.scale_name}", (experts, *by_expert), torch.float32, scales)
        if self.has_input_scale:
            not_needed = {**attributes, "weight_loader": ignore}
            register(layer, f"{name}_input_scale", (experts,), torch.float32, not_needed)

    def _check_blocks(self, inner: int) -> None:
        if self.block_size is None:
            return
        rows, columns = self.block_size
        if inner % rows or (self.moe.tp_size > 1 and inner % columns):
            raise ValueError(
                f"Choose another --tensor-parallel-size, or --enable-expert-parallel: {inner} columns of an expert on "
                f"each chip cannot be divided into the checkpoint's blocks of {rows} x {columns}."
            )

    def _scales_of_expert(self, name: str, outputs: int, inputs: int) -> tuple[int, ...]:
        if self.block_size is None:
            return (2,) if name == "w13" else ()
        rows, columns = self.block_size
        return -(-outputs // rows), -(-inputs // columns)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Raises NotImplementedError for what is not covered."""
        moe.refuse_uncovered(layer)
        device = layer.w13_weight.device
        weights = {name: self._numbers(layer, name) for name in PROJECTIONS}
        for weight in weights.values():
            dequantized.count("fp8", self.dtype, weight.numel())
        convert_to_unquantized(layer, weights, device)

    def _numbers(self, layer: Any, name: str) -> torch.Tensor:
        """[experts, out, in] in the model's dtype, on the host."""
        bits = getattr(layer, f"{name}_weight").data.cpu()
        scales = getattr(layer, f"{name}_{self.scale_name}").data.cpu()
        numbers = torch.empty(bits.shape, dtype=self.dtype)
        for expert, scale in enumerate(scales):
            if self.block_size is None:  # one for each of the matrices that lie in one
                scale = scale.reshape(-1).repeat_interleave(bits.shape[1] // scale.numel()).unsqueeze(1)
            else:
                scale = dequantized.whole_scale(scale, self.block_size, bits.shape[1:])
            numbers[expert] = bits[expert].view(torch.float8_e4m3fn).float().mul_(scale)
        return numbers
