"""Which experts a token goes to: the gating operator, or stock operators where a bias corrects the choice."""

from __future__ import annotations

import torch
import torch_npu
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import GroupedTopk

from ascend_facts.chips import Forms
from ascend_plugin import detection

NEVER = -1e30  # finite: a chip may have no infinity


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
    else:
        weights, ids = torch.topk(_scores(gating_output, scoring_func), topk, dim=-1)
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


def fused_topk_bias(
    hidden_states: torch.Tensor,
    gating_output: torch.Tensor,
    scoring_func: str,
    e_score_correction_bias: torch.Tensor | None,
    topk: int,
    renormalize: bool,
    indices_type: torch.dtype | None = None,
    input_tokens: torch.Tensor | None = None,
    hash_indices_table: torch.Tensor | None = None,
    routed_scaling_factor: float = 1.0,
    bias_vl: torch.Tensor | None = None,
    image_sentinel_lo: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts chosen by score and bias, weighted by score alone: weights fp32 and ids [tokens, topk].

    Stands for vLLM's fused_topk_bias. Raises NotImplementedError for experts chosen by a table of tokens (DeepSeek V4).
    """
    if hash_indices_table is not None or bias_vl is not None:
        raise NotImplementedError(
            "Experts that are chosen by a table of tokens (DeepSeek V4) do not run on Ascend yet."
        )
    scores = _scores(gating_output, scoring_func)
    choice = scores if e_score_correction_bias is None else scores + e_score_correction_bias.float()
    weights, ids = _taken(scores, choice, topk, renormalize)
    return weights * routed_scaling_factor, ids.to(indices_type or torch.int32)


def identity_experts(
    expert_indices: torch.Tensor,
    expert_scales: torch.Tensor,
    num_experts: int,
    zero_expert_type: str,
    hidden_states: torch.Tensor,
) -> torch.Tensor:
    """What experts that hand on what they get (LongCat, from num_experts on) add to each token [tokens, hidden].

    Stands for vLLM's zero_experts_compute_triton; indices and scales [tokens, k] stay as they are. Raises
    NotImplementedError for another kind of such experts.
    """
    if zero_expert_type != "identity":
        raise NotImplementedError(f"Experts without weights of the kind {zero_expert_type!r} do not run on Ascend yet.")
    share = expert_scales.float().masked_fill(expert_indices < num_experts, 0.0).sum(dim=-1, keepdim=True)
    return (hidden_states.float() * share).to(hidden_states.dtype)


def _scores(logits: torch.Tensor, function: str) -> torch.Tensor:
    """Scores [tokens, experts] in float32: rounded to float16, neighbors would become ties."""
    logits = logits.float()
    if function == "softmax":
        return logits.softmax(dim=-1)
    if function == "sigmoid":
        return logits.sigmoid()
    if function == "sqrtsoftplus":
        return torch.nn.functional.softplus(logits).sqrt()
    raise ValueError(f"scoring_func is {function!r}; softmax, sigmoid and sqrtsoftplus are known.")


def _taken(scores: torch.Tensor, choice: torch.Tensor, k: int, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.topk(choice, k, dim=-1)[1]
    weights = scores.gather(1, ids)
    return (weights / weights.sum(dim=-1, keepdim=True) if renormalize else weights), ids


class AscendGroupedTopk(GroupedTopk):
    """Experts of the best groups only (DeepSeek), in float32 whatever the gate's dtype."""

    def forward_oot(
        self,
        hidden_states: torch.Tensor,
        gating_output: torch.Tensor,
        e_score_correction_bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scores = _scores(gating_output, self.scoring_func)
        choice = scores if e_score_correction_bias is None else scores + e_score_correction_bias.float()
        groups = choice.unflatten(-1, (self.num_expert_group, -1))
        of_group = groups.topk(1 if e_score_correction_bias is None else 2, dim=-1)[0].sum(dim=-1)
        best = torch.topk(of_group, self.topk_group, dim=-1)[1]
        left_out = torch.ones_like(of_group).scatter_(1, best, 0.0)
        choice = (groups + left_out.unsqueeze(-1) * NEVER).flatten(1)
        weights, ids = _taken(scores, choice, self.topk, self.renormalize)
        return weights * self.routed_scaling_factor, ids.to(torch.int32)


def register() -> None:
    """Put this in the place of vLLM's. Can be repeated."""
    if GroupedTopk.__name__ not in op_registry_oot:
        GroupedTopk.register_oot(AscendGroupedTopk, name=GroupedTopk.__name__)
