"""Routed experts of quantized checkpoints: what their methods share."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
from vllm.model_executor.utils import set_weight_attrs

from ascend_plugin.ops import moe

PROJECTIONS = ("w13", "w2")  # vLLM's names: gate and up in one, then down


class QuantizedExperts(FusedMoEMethodBase):
    """vLLM's method for the experts of a layer; routing stays with vLLM's routers.

    A subclass makes the products once the weights are loaded, or makes the layer plain (`convert_to_unquantized`).
    """

    is_monolithic = False
    up: moe.Grouped
    down: moe.Grouped

    def create_weights(
        self,
        layer: Any,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        """Raises ValueError where the rank's share of a matrix cannot be stored as the checkpoint has it."""
        self.dtype = params_dtype
        inner = intermediate_size_per_partition
        for name, outputs, inputs in zip(PROJECTIONS, (2 * inner, hidden_size), (hidden_size, inner), strict=True):
            self.create_projection(layer, name, (num_experts, outputs, inputs), attributes)

    def create_projection(self, layer: Any, name: str, shape: tuple[int, int, int], attributes: dict[str, Any]) -> None:
        """Register what the checkpoint stores of one of PROJECTIONS, which has this shape: [experts, out, in]."""
        raise NotImplementedError

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
        return moe.run_experts(layer, x, topk_weights, topk_ids, self.up, self.down)


def convert_to_unquantized(
    layer: Any, weights: dict[str, torch.Tensor], device: torch.device, biases: dict[str, torch.Tensor] | None = None
) -> None:
    """Give the layer these weights, [experts, out, in] by PROJECTIONS, and the method for unquantized experts."""
    forget_parameters(layer)
    for name, bias in (biases or {}).items():
        layer.register_parameter(f"{name}_bias", torch.nn.Parameter(bias, requires_grad=False))
    for name, weight in weights.items():
        layer.register_parameter(f"{name}_weight", torch.nn.Parameter(weight.to(device), requires_grad=False))
    method = moe.AscendFusedMoEMethod(layer.moe_config)
    layer._replace_quant_method(method)
    method.process_weights_after_loading(layer)


def forget_parameters(layer: torch.nn.Module) -> None:
    """Drop every parameter of the layer itself: products hold what they need."""
    for name in list(layer._parameters):
        delattr(layer, name)


def register(layer: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype, attributes: dict[str, Any]) -> None:
    """A parameter with what vLLM's loader of experts asks of it."""
    parameter = torch.nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
    layer.register_parameter(name, parameter)
    set_weight_attrs(parameter, attributes)


def ignore(*_: Any, return_success: bool = False, **__: Any) -> bool | None:
    """A loader for what a checkpoint has and no product needs."""
    return True if return_success else None
