"""Routed experts of ModelSlim checkpoints, kind W8A8_DYNAMIC: int8 weights, tokens quantised by their own scale."""

from __future__ import annotations

from typing import Any

import torch
import torch_npu
from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
from vllm.model_executor.utils import set_weight_attrs

from ascend_plugin import detection
from ascend_plugin.ops import moe
from ascend_plugin.quantization.modelslim import UnsupportedCheckpoint


class GroupedInt8Product:
    """Ranges of rows times the int8 weights of their experts, [experts, out, in], with scales fp32 [experts, out].

    Where CANN's grouped product takes int8 it is given rows that npu_dynamic_quant made; Ascend 310P has an operator
    of its own that quantises, multiplies and scales back, and wants running totals of the rows.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> None:
        self.experts = weight.shape[0]
        self.dtype = dtype
        self.quantises_itself = detection.current_chip().weight_format == "nz"
        self.weight = weight if self.quantises_itself else weight.transpose(1, 2)
        self.scale = scale.to(torch.bfloat16) if dtype == torch.bfloat16 else scale

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        if self.quantises_itself:
            totals = tokens_of if kind == moe.RUNNING_TOTALS else tokens_of.cumsum(0)
            return torch_npu.npu_quant_grouped_matmul_dequant(
                rows, self.weight, self.scale, totals, quant_mode="pertoken"
            )
        quantised, by_row = torch_npu.npu_dynamic_quant(rows)
        return torch_npu.npu_grouped_matmul(
            [quantised],
            [self.weight],
            scale=[self.scale],
            per_token_scale=[by_row],
            group_list=tokens_of,
            split_item=moe.ONE_OUTPUT,
            group_type=moe.SPLIT_ROWS,
            group_list_type=kind,
            output_dtype=self.dtype,
        )[0]


class DynamicExperts(FusedMoEMethodBase):
    """vLLM's method for the experts of a layer; routing stays with vLLM's routers."""

    is_monolithic = False

    def create_weights(
        self,
        layer: Any,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        self.dtype = params_dtype
        shapes = {
            "w13": (num_experts, 2 * intermediate_size_per_partition, hidden_size),
            "w2": (num_experts, hidden_size, intermediate_size_per_partition),
        }
        by_output = {**attributes, "quant_method": "channel"}
        not_needed = {**attributes, "weight_loader": _ignore}  # the offsets are zero: weights are symmetric
        for name, (experts, outputs, inputs) in shapes.items():
            _register(layer, f"{name}_weight", (experts, outputs, inputs), torch.int8, attributes)
            _register(layer, f"{name}_weight_scale", (experts, outputs, 1), torch.float32, by_output)
            _register(layer, f"{name}_weight_offset", (experts, 1, 1), torch.float32, not_needed)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Raises UnsupportedCheckpoint for experts with biases, and for activations that are not covered."""
        if self.moe.has_bias or layer.activation not in moe.ACTIVATIONS:
            raise UnsupportedCheckpoint(
                "Quantised experts with biases or other gates than SwiGLU and GELU do not run yet."
            )
        products = []
        for name in ("w13", "w2"):
            weight, scale = getattr(layer, f"{name}_weight").data, getattr(layer, f"{name}_weight_scale").data
            products.append(GroupedInt8Product(weight, scale.squeeze(-1), self.dtype))
            delattr(layer, f"{name}_weight_offset")
        self.up, self.down = products

    def get_fused_moe_quant_config(self, layer: Any) -> None:
        return None

    def apply(
        self,
        layer: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: Any = None,
        shared_experts_input: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return moe.routed_experts(x, topk_weights, topk_ids, self.up, self.down, layer.activation, layer.expert_map)


def _register(layer: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype, attributes: dict[str, Any]) -> None:
    parameter = torch.nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
    layer.register_parameter(name, parameter)
    set_weight_attrs(parameter, attributes)


def _ignore(*_: Any, return_success: bool = False, **__: Any) -> bool | None:
    return True if return_success else None
