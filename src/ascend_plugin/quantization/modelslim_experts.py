"""Routed experts of ModelSlim checkpoints, kind W8A8_DYNAMIC: int8 weights, tokens quantized by their own scale."""

from __future__ import annotations

from typing import Any

import torch
import torch_npu

from ascend_plugin import detection
from ascend_plugin.ops import moe
from ascend_plugin.quantization.experts import PROJECTIONS, QuantizedExperts, forget_parameters, ignore, register


class GroupedInt8Product:
    """Ranges of rows times the int8 weights of their experts, [experts, out, in], with scales fp32 [experts, out].

    Where CANN's grouped product takes int8 it is given rows that npu_dynamic_quant made; Ascend 310P has an operator
    of its own that quantizes, multiplies and scales back, and wants running totals of the rows.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> None:
        self.experts = weight.shape[0]
        self.dtype = dtype
        self.quantizes_itself = detection.current_chip().weight_format == "nz"
        self.weight = weight if self.quantizes_itself else weight.transpose(1, 2)
        self.scale = scale.to(torch.bfloat16) if dtype == torch.bfloat16 else scale

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        if self.quantizes_itself:
            totals = tokens_of if kind == moe.RUNNING_TOTALS else tokens_of.cumsum(0)
            return torch_npu.npu_quant_grouped_matmul_dequant(
                rows, self.weight, self.scale, totals, quant_mode="pertoken"
            )
        quantized, by_row = torch_npu.npu_dynamic_quant(rows)
        return torch_npu.npu_grouped_matmul(
            [quantized],
            [self.weight],
            scale=[self.scale],
            per_token_scale=[by_row],
            group_list=tokens_of,
            split_item=moe.ONE_OUTPUT,
            group_type=moe.SPLIT_ROWS,
            group_list_type=kind,
            output_dtype=self.dtype,
        )[0]


class DynamicExperts(QuantizedExperts):
    """int8 experts whose inputs are quantized by token."""

    def create_projection(self, layer: Any, name: str, shape: tuple[int, int, int], attributes: dict[str, Any]) -> None:
        experts, outputs, _ = shape
        by_output = {**attributes, "quant_method": "channel"}
        not_needed = {**attributes, "weight_loader": ignore}  # the offsets are zero: weights are symmetric
        register(layer, f"{name}_weight", shape, torch.int8, attributes)
        register(layer, f"{name}_weight_scale", (experts, outputs, 1), torch.float32, by_output)
        register(layer, f"{name}_weight_offset", (experts, 1, 1), torch.float32, not_needed)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Raises NotImplementedError for what is not covered."""
        moe.refuse_uncovered(layer)
        self.up, self.down = (
            GroupedInt8Product(
                getattr(layer, f"{name}_weight").data,
                getattr(layer, f"{name}_weight_scale").data.squeeze(-1),
                self.dtype,
            )
            for name in PROJECTIONS
        )
        forget_parameters(layer)
