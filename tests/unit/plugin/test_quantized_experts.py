"""Experts of quantized checkpoints: what is read is what the tools store; what cannot be split or run is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.layers.fused_moe.activation import MoEActivation

from ascend_facts import chips
from ascend_plugin import detection
from ascend_plugin.ops import moe
from ascend_plugin.quantization.dequantized_experts import DequantizedFp8Experts
from ascend_plugin.quantization.weight_only_experts import AwqExperts, GptqExperts, numbers_of
from conformance.low_bit_checkpoints import awq_matrix, fp8_matrix, gptq_matrix

EXPERTS, OUTPUTS, INPUTS = 3, 256, 384


def weights() -> torch.Tensor:
    return torch.randn(EXPERTS, OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0))


def stored_by(scheme: Any) -> tuple[SimpleNamespace, torch.Tensor]:
    """A layer with what a checkpoint has for its `w2`, and the numbers that this means, fp32."""
    made = [scheme(matrix) for matrix in weights()]
    tensors = {f"w2_{name}": SimpleNamespace(data=torch.stack([one[0][name] for one in made])) for name in made[0][0]}
    return SimpleNamespace(**tensors), torch.stack([numbers for _, numbers in made])


def moe_config(inner: int, ranks: int = 1) -> Any:
    return SimpleNamespace(intermediate_size_per_partition=inner, tp_size=ranks, hidden_dim=INPUTS, has_bias=False)


@pytest.mark.parametrize(("scheme", "method"), [(awq_matrix, AwqExperts), (gptq_matrix, GptqExperts)])
def test_four_bit_experts_are_what_the_tool_stored(scheme: Any, method: Any) -> None:
    layer, numbers = stored_by(scheme)
    experts = method(SimpleNamespace(weight_bits=4, group_size=128), moe_config(OUTPUTS))
    read = numbers_of(experts._read(layer, "w2"))
    assert read.dtype == torch.float16
    torch.testing.assert_close(read.float(), numbers, rtol=2e-3, atol=1e-4)  # one rounding to fp16


@pytest.mark.parametrize("by_block", [True, False])
def test_fp8_experts_are_what_the_tool_stored(by_block: bool) -> None:
    layer, numbers = stored_by(lambda weight: fp8_matrix(weight, by_block))
    layer.w2_weight.data = layer.w2_weight.data.view(torch.uint8)
    config = SimpleNamespace(activation_scheme="dynamic", weight_block_size=[128, 128] if by_block else None)
    experts = DequantizedFp8Experts(config, moe_config(OUTPUTS))
    experts.dtype = torch.bfloat16
    torch.testing.assert_close(experts._numbers(layer, "w2").float(), numbers, rtol=8e-3, atol=1e-5)


def test_scales_of_finer_blocks_where_a_rank_s_share_cuts_through_them() -> None:
    config = SimpleNamespace(activation_scheme="dynamic", weight_block_size=[128, 128])
    whole, cut = (DequantizedFp8Experts(config, moe_config(inner, 4)) for inner in (256, 192))
    assert (whole.block_size, whole.weight_scale_refine) == ([128, 128], None)
    assert (cut.block_size, cut.weight_scale_refine) == ([64, 64], (2, 2))
    uneven = DequantizedFp8Experts(config, moe_config(200, 4))
    with pytest.raises(ValueError, match="Choose another --tensor-parallel-size"):
        uneven._check_blocks(200)


def test_groups_that_a_rank_s_share_cuts_through_are_refused() -> None:
    experts = AwqExperts(SimpleNamespace(weight_bits=4, group_size=128), moe_config(192, 4))
    assert experts._groups(384) == 3
    with pytest.raises(ValueError, match=r"192 inputs of an expert.*groups of 128"):
        experts._groups(192)
    with pytest.raises(NotImplementedError, match="experts of 8 bits"):
        GptqExperts(SimpleNamespace(weight_bits=8, group_size=128), moe_config(256))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moe_config": SimpleNamespace(has_bias=True)}, "biases"),
        ({"activation": MoEActivation.RELU2}, "activation"),
    ],
)
def test_experts_that_no_product_covers_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(detection, "current_chip", lambda: chips.find("310P3"))
    plain = {"moe_config": moe_config(256), "activation": MoEActivation.SILU, "apply_router_weight_on_input": False}
    moe.refuse_uncovered(SimpleNamespace(**plain))
    with pytest.raises(NotImplementedError, match=words):
        moe.refuse_uncovered(SimpleNamespace(**{**plain, **change}))
