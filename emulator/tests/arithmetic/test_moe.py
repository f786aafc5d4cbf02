"""Mixture of experts: gating, routing and combining against torch on the CPU."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup


def best_groups(scores: torch.Tensor, groups: int, kept: int, by_two: bool) -> torch.Tensor:
    """Scores with those outside the best groups at -inf; a group ranks by its largest score or its two largest."""
    parts = scores.unflatten(-1, (groups, -1))
    rank = parts.topk(2, -1).values.sum(-1) if by_two else parts.amax(-1)
    keep = torch.zeros_like(rank, dtype=torch.bool).scatter_(-1, rank.topk(kept, -1).indices, True)
    return parts.masked_fill(~keep.unsqueeze(-1), float("-inf")).flatten(-2)


def check_gating(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for experts, groups, kept, k, by_two, sigmoid in [
        (256, 8, 4, 8, True, True),
        (64, 1, 1, 6, False, False),
        (96, 4, 2, 5, False, True),
    ]:
        x, bias = torch.randn(33, experts).to(dtype), torch.randn(experts).to(dtype)
        weights, chosen, norm = torch_npu.npu_moe_gating_top_k(
            x.npu(),
            k,
            bias=bias.npu(),
            k_group=kept,
            group_count=groups,
            group_select_mode=int(by_two),
            norm_type=int(sigmoid),
            out_flag=True,
            routed_scaling_factor=2.5,
        )
        scores = x.float().sigmoid() if sigmoid else x.float().softmax(-1)
        torch.testing.assert_close(norm.cpu(), scores)
        ranked = scores + bias.float()
        expected = (best_groups(ranked, groups, kept, by_two) if groups > 1 else ranked).topk(k, -1).indices
        assert torch.equal(chosen.cpu().long(), expected)
        values = scores.gather(-1, expected)
        if sigmoid:
            values = values / values.sum(-1, keepdim=True)
        assert_close(weights, values * 2.5, f"{experts} experts")


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_gating(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_gating, dtype)


def gating_refusals() -> dict[str, str]:
    torch_npu = setup()

    def gate(experts: int, k: int, **options: int) -> str:
        return refusal(lambda: torch_npu.npu_moe_gating_top_k(torch.ones(2, experts).half().npu(), k, **options))

    return {
        "experts": gate(4096, 8),
        "groups": gate(60, 4, group_count=7),
        "k": gate(64, 17, group_count=8, k_group=2),
        "renorm": gate(64, 4, renorm=1),
    }


@pytest.mark.chips("910B3")
def test_gating_is_refused_beyond_its_limits(npu: Npu) -> None:
    messages = npu.call(gating_refusals)
    assert "at most 2048" in messages["experts"]
    assert "groupCount is 7" in messages["groups"]
    assert "k is 17 and kGroup 2" in messages["k"]
    assert "renorm is 1" in messages["renorm"]


def check_there_and_back(dtype: torch.dtype) -> None:
    """Routed to the experts, through experts that multiply by their number, and combined again."""
    torch_npu = setup()
    for rows, k, experts, hidden in [(1, 1, 4, 32), (9, 2, 8, 64), (40, 6, 16, 96)]:
        x = torch.randn(rows, hidden).to(dtype)
        chosen = torch.rand(rows, experts).argsort(-1)[:, :k]
        scales = torch.rand(rows, k).to(dtype)
        expanded, index, counts, _ = torch_npu.npu_moe_init_routing_v2(
            x.npu(),
            chosen.int().npu(),
            active_num=rows * k,
            expert_num=experts,
            expert_tokens_num_type=1,
            expert_tokens_num_flag=True,
            active_expert_range=[0, experts],
        )
        assert torch.equal(counts.cpu(), torch.bincount(chosen.flatten(), minlength=experts))
        expert_of_row = torch.arange(experts).repeat_interleave(counts.cpu()).to(dtype).npu()
        outputs = expanded * expert_of_row.unsqueeze(1)
        combined = torch_npu.npu_moe_finalize_routing(
            outputs, None, None, None, scales.npu(), index, None, drop_pad_mode=2
        )
        expected = x.float() * (scales.float() * chosen).sum(-1, keepdim=True)
        assert_close(combined, expected, f"{rows, k, experts, hidden}", 8)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_rows_come_back_to_their_tokens(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_there_and_back, dtype)


def check_quantized_routing() -> None:
    torch_npu = setup()
    rows, k, experts, hidden, first, end = 12, 3, 8, 64, 2, 6
    x, chosen = torch.randn(rows, hidden).bfloat16(), torch.rand(rows, experts).argsort(-1)[:, :k]
    smooth = torch.rand(end - first, hidden) + 0.5
    expanded, index, counts, scale = torch_npu.npu_moe_init_routing_v2(
        x.npu(),
        chosen.int().npu(),
        scale=smooth.npu(),
        active_num=rows * k,
        expert_num=experts,
        expert_tokens_num_type=1,
        expert_tokens_num_flag=True,
        active_expert_range=[first, end],
        quant_mode=1,
        row_idx_type=1,
    )
    here = int(counts.sum())
    slots = index.cpu()[:here].long()
    token, expert = slots // k, chosen.flatten()[slots]
    assert torch.equal(expert, expert.sort().values) and ((expert >= first) & (expert < end)).all()
    moved = x.float()[token] * smooth[expert - first]
    torch.testing.assert_close(scale.cpu()[:here], moved.abs().amax(-1) / 127)
    restored = expanded.cpu().float()[:here] * scale.cpu()[:here, None]
    assert ((restored - moved).abs() <= scale.cpu()[:here, None] * 0.51).all()


@pytest.mark.chips("910B3")
def test_rows_quantized_for_the_experts_of_a_rank(npu: Npu) -> None:
    npu.call(check_quantized_routing)


def check_permutation() -> None:
    torch_npu = setup()
    tokens, experts = torch.randn(17, 48).bfloat16(), torch.randint(0, 5, (17, 3))
    probabilities = torch.rand(17, 3).bfloat16()
    permuted, index = torch_npu.npu_moe_token_permute(tokens.npu(), experts.npu())
    order = experts.flatten().argsort(stable=True)
    assert torch.equal(permuted.cpu(), tokens[order // 3])
    assert torch.equal(index.cpu().long(), order.argsort())
    back = torch_npu.npu_moe_token_unpermute(permuted, index, probs=probabilities.npu())
    assert_close(back, tokens.float() * probabilities.float().sum(-1, keepdim=True), "unpermute", 2)
    ends = torch_npu.npu_moe_compute_expert_tokens(experts.flatten().sort().values.int().npu(), 5)
    assert torch.equal(ends.cpu().long(), torch.bincount(experts.flatten(), minlength=5).cumsum(0))


@pytest.mark.chips("910B3")
def test_permutation_and_back(npu: Npu) -> None:
    npu.call(check_permutation)


def combination_refused() -> str:
    torch_npu = setup()
    rows, scales, index = torch.ones(4, 32).half(), torch.ones(2, 2).half(), torch.arange(4).int()
    call = torch_npu.npu_moe_finalize_routing
    return refusal(lambda: call(rows.npu(), None, None, None, scales.npu(), index.npu(), None, drop_pad_mode=0))


@pytest.mark.chips("310P3")
def test_310p_combines_rows_of_the_second_routing_only(npu: Npu) -> None:
    assert "dropPadMode is 0, but must be 2 on Ascend310P3" in npu.call(combination_refused)
