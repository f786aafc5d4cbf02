"""Mixture of experts: CANN's fused gating, routing and grouped matrix products; no loop over experts.

Tokens are sorted by expert (`npu_moe_init_routing_v2`), each expert multiplies its rows (`npu_grouped_matmul`), and the
rows go back to their tokens, weighted. Shapes do not depend on the routing, so the whole can be captured in a graph.

Over several chips each one holds some of the experts, sees all tokens and leaves out the rows of experts it does not
hold; vLLM sums the chips' outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
import torch_npu
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

from ascend_plugin import detection
from ascend_plugin.ops import weight_update
from ascend_plugin.ops.formats import FRACTAL_NZ

SPLIT_ROWS = 0  # npu_grouped_matmul's group_type: the groups are ranges of rows
ONE_OUTPUT = 2  # its split_item: one tensor in, one out
RUNNING_TOTALS, COUNTS = 0, 1  # its group_list_type
DROPLESS, UNQUANTIZED, GATHER_INDEX = 0, -1, 0  # npu_moe_init_routing_v2's drop_pad_mode, quant_mode, row_idx_type


class AscendFusedMoEMethod(UnquantizedFusedMoEMethod):
    """vLLM's method for unquantized experts, on grouped matrix products."""

    is_monolithic = False  # routing is a step of its own, so that vLLM's routers stay in charge

    def process_weights_after_loading(self, layer: Any) -> None:
        """Turn [experts, out, in] into the [experts, in, out] that grouped products read, in the chip's layout.

        Raises NotImplementedError for what is not covered.
        """
        refuse_uncovered(layer, with_bias=True)
        super().process_weights_after_loading(layer)
        if layer.activation is MoEActivation.SWIGLUOAI:  # as MiniMax-M3 has them: all gates, then all ups
            for name in ("w13_weight", "w13_bias"):
                if hasattr(layer, name):
                    weight = getattr(layer, name).data
                    getattr(layer, name).data = torch.cat([weight[:, ::2], weight[:, 1::2]], dim=1)
        for name in ("w13_weight", "w2_weight"):
            weight = getattr(layer, name).data.transpose(1, 2).contiguous()
            if detection.current_chip().weight_format == "nz":
                weight = torch_npu.npu_format_cast(weight, FRACTAL_NZ)
            # Not vLLM's replace_parameter, which copies into the old storage where sizes match (square experts): the
            # layout would be lost.
            getattr(layer, name).data = weight
            weight_update.refuse_loading(getattr(layer, name), "the experts of this model")

    def forward_oot(
        self,
        layer: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: Any = None,
        shared_experts_input: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Output of the routed experts, [tokens, hidden]; x [tokens, hidden], weights and ids [tokens, k]."""
        up = GroupedProduct(layer.w13_weight, getattr(layer, "w13_bias", None))
        down = GroupedProduct(layer.w2_weight, getattr(layer, "w2_bias", None))
        return run_experts(layer, x, topk_weights, topk_ids, up, down)


def refuse_uncovered(layer: Any, with_bias: bool = False) -> None:
    """Raises NotImplementedError for experts that `run_experts` does not compute.

    with_bias: the products of this layer add the experts' biases.
    """
    if layer.moe_config.has_bias and not with_bias:
        raise NotImplementedError(
            "Quantized experts with biases (gpt-oss) do not run on Ascend yet: use a checkpoint whose experts are not "
            "quantized."
        )
    if layer.activation not in ACTIVATIONS:
        raise NotImplementedError(f"Experts with the activation {layer.activation.value} do not run on Ascend yet.")
    width, chip = layer.moe_config.hidden_dim, detection.current_chip()
    if width % chip.forms.routing_width_multiple:
        raise NotImplementedError(
            f"This model's experts do not run on {chip.soc_version}: it sorts rows by expert whose width is a multiple "
            f"of {chip.forms.routing_width_multiple}, and these have {width}."
        )


class Grouped(Protocol):
    """Products of ranges of rows with the weights of their experts."""

    experts: int

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        """rows [rows, in]; tokens_of int64 [experts], the rows of each as `kind` says; returns [rows, out]."""
        ...


class GroupedProduct:
    """With weights [experts, in, out] of the rows' own dtype."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias
        self.experts = weight.shape[0]

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        products = self._products(rows, tokens_of, kind)
        if self.bias is None:
            return products
        ends = (tokens_of if kind == RUNNING_TOTALS else tokens_of.cumsum(0)).float()
        places = torch.arange(rows.shape[0], dtype=torch.float32, device=rows.device)
        expert = (places.unsqueeze(1) >= ends).float().sum(dim=1).clamp_(max=self.experts - 1)
        return products + self.bias.index_select(0, expert.long())

    def _products(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        return torch_npu.npu_grouped_matmul(
            [rows],
            [self.weight],
            group_list=tokens_of,
            split_item=ONE_OUTPUT,
            group_type=SPLIT_ROWS,
            group_list_type=kind,
        )[0]


def run_experts(
    layer: Any, x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, up: Grouped, down: Grouped
) -> torch.Tensor:
    """The output [tokens, hidden] of a layer of vLLM's, whose weights are in `up` and `down`."""
    if layer.apply_router_weight_on_input:  # Llama 4, which chooses one expert a token
        x, weights = x * weights.to(x.dtype), torch.ones_like(weights)
    return routed_experts(x, weights, ids, up, down, activation_of(layer), layer.expert_map)


Activation = Callable[[torch.Tensor], torch.Tensor]


def routed_experts(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    up: Grouped,
    down: Grouped,
    activation: Activation,
    expert_map: torch.Tensor | None,
) -> torch.Tensor:
    """Sum over each token's experts of weight * down(activation(up(x))).

    x [tokens, hidden]; weights fp32 and ids int32 [tokens, k]; activation maps what up gives to what down takes;
    expert_map [all experts] gives the place of an expert on this chip, -1 for the others.
    """
    experts, k = up.experts, ids.shape[1]
    groups, elsewhere = experts, None
    if expert_map is not None:
        local = expert_map[ids.long()]
        elsewhere = local < 0
        # One more group, behind the others, takes the rows of experts elsewhere; nothing is computed for it.
        ids, groups = torch.where(elsewhere, experts, local), experts + 1
    rows, row_of, tokens_of, _ = torch_npu.npu_moe_init_routing_v2(
        x,
        ids.int(),
        active_num=ids.numel(),
        expert_num=groups,
        drop_pad_mode=DROPLESS,
        expert_tokens_num_type=COUNTS,
        expert_tokens_num_flag=True,
        quant_mode=UNQUANTIZED,
        active_expert_range=[0, groups],
        row_idx_type=GATHER_INDEX,
    )
    # On a 310P op-plugin calls MoeInitRoutingV2, which answers with running totals in int32; V3 counts, in int64.
    kind = RUNNING_TOTALS if tokens_of.dtype == torch.int32 else COUNTS
    tokens_of = tokens_of[:experts].long()
    hidden = activation(up(rows, tokens_of, kind))
    outputs = down(hidden, tokens_of, kind).index_select(0, row_of)
    if elsewhere is not None:  # rows that no product wrote: whatever they hold must not meet a sum
        outputs = outputs.masked_fill(elsewhere.view(-1, 1), 0.0)
    return _weighted_sum(weights.to(x.dtype), outputs.view(-1, k, x.shape[1]))


def _weighted_sum(weights: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """[T, hidden] from weights [T, k] and outputs [T, k, hidden] of the same dtype; both forms sum in float32."""
    if detection.current_chip().forms.batched_row_products:
        return torch.matmul(weights.unsqueeze(1), outputs).squeeze(1)
    return (outputs * weights.unsqueeze(-1)).sum(dim=1)


def _gelu_and_multiply(x: torch.Tensor, approximate: str) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.gelu(gate, approximate=approximate) * up


def clamped_swiglu(x: torch.Tensor, limit: float, alpha: float = 1.0, beta: float = 0.0) -> torch.Tensor:
    """(up + beta) * gate * sigmoid(alpha * gate), both cut at the limit first; x has all gates, then all ups."""
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(min=-limit, max=limit)
    return (up + beta) * gate * torch.sigmoid(gate * alpha)


def _swiglu_step(x: torch.Tensor, limit: float) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate).clamp(max=limit) * up.clamp(min=-limit, max=limit)


def _squared_relu(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x).square()


OAI_LIMIT, OAI_ALPHA, OAI_BETA = 7.0, 1.702, 1.0  # gpt-oss
ACTIVATIONS: dict[MoEActivation, Activation] = {
    MoEActivation.SILU: torch_npu.npu_swiglu,
    MoEActivation.GELU: partial(_gelu_and_multiply, approximate="none"),
    MoEActivation.GELU_TANH: partial(_gelu_and_multiply, approximate="tanh"),
    MoEActivation.SWIGLUOAI: partial(clamped_swiglu, limit=OAI_LIMIT, alpha=OAI_ALPHA, beta=OAI_BETA),
    MoEActivation.SWIGLUOAI_UNINTERLEAVE: partial(clamped_swiglu, limit=OAI_LIMIT),
    MoEActivation.SWIGLUSTEP: partial(_swiglu_step, limit=OAI_LIMIT),
    MoEActivation.SILU_NO_MUL: torch.nn.functional.silu,
    MoEActivation.GELU_NO_MUL: torch.nn.functional.gelu,
    MoEActivation.GELU_TANH_NO_MUL: partial(torch.nn.functional.gelu, approximate="tanh"),
    MoEActivation.RELU2_NO_MUL: _squared_relu,
}


def activation_of(layer: Any) -> Activation:
    """What a layer of vLLM's computes between its products, with the limits of its configuration."""
    kind, config = layer.activation, layer.moe_config
    if config.swiglu_limit is not None and kind in (MoEActivation.SILU, MoEActivation.SWIGLUOAI_UNINTERLEAVE):
        alpha, beta = config.swiglu_alpha, config.swiglu_beta
        return partial(clamped_swiglu, limit=config.swiglu_limit, alpha=alpha or 1.0, beta=beta or 0.0)
    return ACTIVATIONS[kind]


def register() -> None:
    """Put these in the place of vLLM's. Can be repeated."""
    if UnquantizedFusedMoEMethod.__name__ not in op_registry_oot:
        UnquantizedFusedMoEMethod.register_oot(AscendFusedMoEMethod, name=UnquantizedFusedMoEMethod.__name__)
