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

from ascend_facts.chips import Forms
from ascend_plugin import detection
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
        refuse_uncovered(layer)
        super().process_weights_after_loading(layer)
        for name in ("w13_weight", "w2_weight"):
            weight = getattr(layer, name).data.transpose(1, 2).contiguous()
            if detection.current_chip().weight_format == "nz":
                weight = torch_npu.npu_format_cast(weight, FRACTAL_NZ)
            # Not vLLM's replace_parameter, which copies into the old storage where sizes match (square experts): the
            # layout would be lost.
            getattr(layer, name).data = weight

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
        up, down = GroupedProduct(layer.w13_weight), GroupedProduct(layer.w2_weight)
        return routed_experts(x, topk_weights, topk_ids, up, down, layer.activation, layer.expert_map)


def refuse_uncovered(layer: Any) -> None:
    """Raises NotImplementedError for experts, quantized or not, that `routed_experts` does not compute."""
    if layer.moe_config.has_bias:
        raise NotImplementedError("Experts with biases (gpt-oss) do not run on Ascend yet.")
    if layer.activation not in ACTIVATIONS:
        raise NotImplementedError(f"Experts with the activation {layer.activation.value} do not run on Ascend yet.")
    if layer.apply_router_weight_on_input:
        raise NotImplementedError("Router weights on the experts' input (Llama 4) do not run on Ascend yet.")
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

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self.experts = weight.shape[0]

    def __call__(self, rows: torch.Tensor, tokens_of: torch.Tensor, kind: int) -> torch.Tensor:
        return torch_npu.npu_grouped_matmul(
            [rows],
            [self.weight],
            group_list=tokens_of,
            split_item=ONE_OUTPUT,
            group_type=SPLIT_ROWS,
            group_list_type=kind,
        )[0]


def routed_experts(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    up: Grouped,
    down: Grouped,
    activation: MoEActivation,
    expert_map: torch.Tensor | None,
) -> torch.Tensor:
    """Sum over each token's experts of weight * down(activation(up(x))).

    x [tokens, hidden]; weights fp32 and ids int32 [tokens, k]; up maps hidden to 2 * inner, down maps inner to hidden;
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
    hidden = ACTIVATIONS[activation](up(rows, tokens_of, kind))
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


ACTIVATIONS: dict[MoEActivation, Callable[[torch.Tensor], torch.Tensor]] = {
    MoEActivation.SILU: torch_npu.npu_swiglu,
    MoEActivation.GELU: partial(_gelu_and_multiply, approximate="none"),
    MoEActivation.GELU_TANH: partial(_gelu_and_multiply, approximate="tanh"),
}


def fused_topk(
    hidden_states: torch.Tensor,
    gating_output: torch.Tensor,
    topk: int,
    renormalize: bool,
    indices_type: torch.dtype | None = None,
    scoring_func: str = "softmax",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The most likely experts of each token: weights fp32 and ids [tokens, topk]; stands for vLLM's fused_topk."""
    if scoring_func == "softmax":
        weights, ids = _most_likely(gating_output, topk, detection.current_chip().forms)
    elif scoring_func == "sigmoid":
        weights, ids = torch.topk(gating_output.float().sigmoid(), topk, dim=-1)
    else:
        raise ValueError(f"scoring_func is {scoring_func!r}; softmax and sigmoid are known.")
    if renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, ids.to(indices_type or torch.int32), None


def _most_likely(logits: torch.Tensor, k: int, forms: Forms) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row's softmax, fp32, and their columns [T, k]; logits [T, experts].

    By the gating operator where it takes them as they are; logits that a model computes in float32 because float16
    does not hold them stay float32.
    """
    tokens, experts = logits.shape
    missing = -experts % forms.gating_expert_multiple
    if forms.gating_float32:
        logits = logits.float()
    too_wide = forms.gating_experts and experts + missing > forms.gating_experts
    if too_wide or (not forms.gating_float32 and logits.dtype != torch.float16):
        return torch.topk(logits.float().softmax(dim=-1), k, dim=-1)
    if missing:  # columns that no token chooses
        logits = torch.nn.functional.pad(logits, (0, missing), value=torch.finfo(logits.dtype).min)
    pieces = logits.split(forms.gating_rows or tokens) if tokens else (logits,)
    chosen = [torch_npu.npu_moe_gating_top_k_softmax(piece, None, k)[:2] for piece in pieces]
    weights, ids = chosen[0] if len(chosen) == 1 else (torch.cat(parts) for parts in zip(*chosen, strict=True))
    return weights.float(), ids


def register() -> None:
    """Put these in the place of vLLM's. Can be repeated."""
    if UnquantizedFusedMoEMethod.__name__ not in op_registry_oot:
        UnquantizedFusedMoEMethod.register_oot(AscendFusedMoEMethod, name=UnquantizedFusedMoEMethod.__name__)
