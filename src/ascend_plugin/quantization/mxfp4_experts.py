"""Routed experts of gpt-oss as published (MXFP4: blocks of 32 four-bit floats with a power of two), held plain.

No chip before 950 multiplies them: they become numbers of the model's dtype on the host, one expert at a time, with the
experts' biases. Source: OCP Microscaling Formats 1.0, section 5.3; the layout is that of the published checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.quantization.mxfp4 import GptOssMxfp4Config

from ascend_plugin.ops import moe
from ascend_plugin.quantization import dequantized
from ascend_plugin.quantization.experts import PROJECTIONS, QuantizedExperts, convert_to_unquantized, register

BLOCK = 32  # weights that share a scale
BIAS_OF_EXPONENT = 127
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)  # e2m1


class AscendMxfp4Config(GptOssMxfp4Config):
    """In the place of vLLM's, whose experts choose among CUDA's and ROCm's kernels."""

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _make_moe_method(self, moe_config: FusedMoEConfig) -> Mxfp4Experts:
        return Mxfp4Experts(moe_config)


class Mxfp4Experts(QuantizedExperts):
    """MXFP4 experts until their weights are loaded; plain experts from then on."""

    weight_dtype = "gpt_oss_mxfp4"  # gpt-oss's loader asks for it

    def create_projection(self, layer: Any, name: str, shape: tuple[int, int, int], attributes: dict[str, Any]) -> None:
        """Raises ValueError where a rank's share of a matrix has no whole blocks."""
        experts, outputs, inputs = shape
        if inputs % BLOCK:
            raise ValueError(
                f"Choose another --tensor-parallel-size, or --enable-expert-parallel: {inputs} columns of an expert on "
                f"each chip cannot be divided into the checkpoint's blocks of {BLOCK}."
            )
        register(layer, f"{name}_weight", (experts, outputs, inputs // 2), torch.uint8, attributes)
        scales = {**attributes, "quant_method": "block"}
        register(layer, f"{name}_weight_scale", (experts, outputs, inputs // BLOCK), torch.uint8, scales)
        if layer.moe_config.has_bias:
            register(layer, f"{name}_bias", (experts, outputs), self.dtype, attributes)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Raises NotImplementedError for what is not covered."""
        moe.refuse_uncovered(layer, with_bias=True)
        device = layer.w13_weight.device
        weights = {}
        for name in PROJECTIONS:
            bits, scales = (getattr(layer, f"{name}_weight{part}").data.cpu() for part in ("", "_scale"))
            weights[name] = torch.stack([numbers(*expert).to(self.dtype) for expert in zip(bits, scales, strict=True)])
            dequantized.count("mxfp4", self.dtype, weights[name].numel())
        kept = {name: getattr(layer, f"{name}_bias").data for name in PROJECTIONS if hasattr(layer, f"{name}_bias")}
        convert_to_unquantized(layer, weights, device, kept)


def numbers(bits: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """[out, in] float32 of packed bits [out, in / 2], the first of two in the low half, and scales [out, in / 32]."""
    table = torch.tensor(VALUES)
    pairs = torch.stack([table[(bits & 15).long()], table[(bits >> 4).long()]], dim=-1).flatten(-2)
    powers = torch.exp2(scales.float() - BIAS_OF_EXPONENT)
    return (pairs.unflatten(-1, (-1, BLOCK)) * powers.unsqueeze(-1)).flatten(-2)
