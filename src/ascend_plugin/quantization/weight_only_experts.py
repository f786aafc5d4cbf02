"""Routed experts with weights of four bits, activations of sixteen: AWQ and GPTQ.

    y = x @ ((w + offset) * scale)      w in [-8, 7]; a scale and an offset for each group of inputs and each output

(documents of aclnnGroupedMatmulV4 and V5). Atlas A2 and later multiply ranges of rows by such weights, packed eight to
an int32. The documents give Ascend 310P float16 weights only: there they become plain experts while they are loaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch_npu
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig

from ascend_plugin import detection
from ascend_plugin.ops import moe
from ascend_plugin.quantization import dequantized
from ascend_plugin.quantization.experts import (
    PROJECTIONS,
    QuantizedExperts,
    convert_to_unquantized,
    forget_parameters,
    register,
)
from ascend_plugin.quantization.weight_only import MIDDLE, PACKED, pack, unpack

AWQ_NIBBLE_OF_OUTPUT = (0, 4, 1, 5, 2, 6, 3, 7)  # where AWQ packs each of eight outputs in a word


class FourBitWeights(NamedTuple):
    """A projection's weights as numbers on the host, [experts, in, out], with scales and zeros [experts, groups, out].

    values and zeros are unsigned; zeros is None where all of them are 8.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    def offsets(self) -> torch.Tensor:
        """What is added to the signed values, like scales."""
        if self.zeros is None:
            return torch.zeros_like(self.scales)
        return MIDDLE - self.zeros.to(self.scales.dtype)


class GroupedFourBitProduct:
    """Ranges of rows times the packed four-bit weights of their experts."""

    def __init__(self, weights: FourBitWeights, device: torch.device) -> None:
        self.experts, groups = weights.scales.shape[:2]
        self.weight = pack(weights.values.to(torch.int8) - MIDDLE).to(device)
        by_group = weights.scales, weights.offsets()
        self.scales, self.offsets = (x.squeeze(1).to(device) if groups == 1 else x.to(device) for x in by_group)

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        return torch_npu.npu_grouped_matmul(
            [rows],
            [self.weight],
            antiquant_scale=[self.scales],
            antiquant_offset=[self.offsets],
            group_list=tokens_of,
            split_item=moe.ONE_OUTPUT,
            group_type=moe.SPLIT_ROWS,
            group_list_type=kind,
        )[0]


class _FourBitExperts(QuantizedExperts):
    """Loads what both formats have: qweight, packed along inputs or outputs; scales; qzeros, packed along outputs."""

    packs_inputs: bool

    def __init__(self, quant_config: Any, moe_config: FusedMoEConfig) -> None:
        super().__init__(moe_config)
        if quant_config.weight_bits != 4:
            raise NotImplementedError(
                f"Use another checkpoint of this model: experts of {quant_config.weight_bits} bits with a scale for "
                "each group do not run on Ascend yet, only those of 4."
            )
        self.group_size: int = quant_config.group_size

    def create_projection(self, layer: Any, name: str, shape: tuple[int, int, int], attributes: dict[str, Any]) -> None:
        """Raises ValueError where the rank's share of a matrix has no whole groups."""
        experts, outputs, inputs = shape
        scheme = "channel" if self.group_size == -1 else "group"
        attributes = {**attributes, "is_transposed": True, "quant_method": scheme}
        groups = self._groups(inputs)
        packed = (inputs // PACKED, outputs) if self.packs_inputs else (inputs, outputs // PACKED)
        register(layer, f"{name}_qweight", (experts, *packed), torch.int32, attributes)
        register(layer, f"{name}_scales", (experts, groups, outputs), self.dtype, attributes)
        register(layer, f"{name}_qzeros", (experts, groups, outputs // PACKED), torch.int32, attributes)

    def _groups(self, inputs: int) -> int:
        if self.group_size == -1:
            return 1
        if inputs % self.group_size:
            raise ValueError(
                f"Choose another --tensor-parallel-size, or --enable-expert-parallel: {inputs} inputs of an expert on "
                f"each chip cannot be divided into the checkpoint's groups of {self.group_size}."
            )
        return inputs // self.group_size

    def process_weights_after_loading(self, layer: Any) -> None:
        """Raises NotImplementedError for what is not covered."""
        moe.refuse_uncovered(layer)
        device = layer.w13_scales.device
        weights = {name: self._read(layer, name) for name in PROJECTIONS}
        if "int4" in detection.current_chip().weight_only_dtypes:
            self.up, self.down = (GroupedFourBitProduct(weights[name], device) for name in PROJECTIONS)
            forget_parameters(layer)
            return
        for four_bit in weights.values():
            dequantized.count("int4", four_bit.scales.dtype, four_bit.values.numel())
        convert_to_unquantized(layer, {name: numbers_of(four_bit) for name, four_bit in weights.items()}, device)

    def _read(self, layer: Any, name: str) -> FourBitWeights:
        raise NotImplementedError


class AwqExperts(_FourBitExperts):
    """AWQ: words hold eight outputs, in an order of their own; zero points."""

    packs_inputs = False

    def _read(self, layer: Any, name: str) -> FourBitWeights:
        values, zeros = (_in_order(unpack(getattr(layer, f"{name}_{kind}").data, 2)) for kind in ("qweight", "qzeros"))
        return FourBitWeights(values, getattr(layer, f"{name}_scales").data.cpu(), zeros)


class GptqExperts(_FourBitExperts):
    """GPTQ, symmetric: words hold eight inputs, and every zero point is 8."""

    packs_inputs = True

    def _read(self, layer: Any, name: str) -> FourBitWeights:
        values = unpack(getattr(layer, f"{name}_qweight").data, 1)
        return FourBitWeights(values, getattr(layer, f"{name}_scales").data.cpu(), None)


def _in_order(values: torch.Tensor) -> torch.Tensor:
    return values.unflatten(-1, (-1, PACKED))[..., AWQ_NIBBLE_OF_OUTPUT].flatten(-2)


def numbers_of(weights: FourBitWeights) -> torch.Tensor:
    """The weights themselves, [experts, out, in], in the scales' dtype; one expert at a time: on the way it is fp32."""
    experts, inputs, outputs = weights.values.shape
    numbers = torch.empty(experts, outputs, inputs, dtype=weights.scales.dtype)
    offsets = weights.offsets()
    for expert, values in enumerate(weights.values):
        groups = (values.to(torch.int8) - MIDDLE).float().unflatten(0, (weights.scales.shape[1], -1))
        scaled = (groups + offsets[expert].float().unsqueeze(1)) * weights.scales[expert].float().unsqueeze(1)
        numbers[expert] = scaled.flatten(0, 1).t()
    return numbers
