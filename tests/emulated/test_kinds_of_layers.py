"""Layers that models brought one by one, on emulated chips against float64: experts' biases and activations, the choice
of experts by bias and by group, a latent cache, and state spaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

CHIPS = pytest.mark.chips("310P3", "910B3")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    error = (found.cpu().double() - expected.double()).pow(2).mean().sqrt()
    return float(error / expected.double().pow(2).mean().sqrt())


def experts_error(activation: str, with_bias: bool, router_weight_on_input: bool) -> float:
    """Routed experts as a layer of vLLM's asks for them."""
    from types import SimpleNamespace

    from vllm.model_executor.layers.fused_moe.activation import MoEActivation

    from ascend_plugin.ops import moe

    tokens, experts, k, width, inner = 9, 16, 1 if router_weight_on_input else 4, 64, 32
    kind = MoEActivation(activation)
    up = draw(experts, (2 if kind.is_gated else 1) * inner, width, seed=1).half() / 8
    down = draw(experts, width, inner, seed=2).half() / 6
    biases = draw(experts, up.shape[1], seed=3).half(), draw(experts, width, seed=4).half()
    x, ids = draw(tokens, width, seed=5).half(), draw(tokens, experts, seed=6).topk(k)[1].int()
    weights = draw(tokens, k, seed=7).softmax(-1) * 0.7
    config = SimpleNamespace(swiglu_limit=None, swiglu_alpha=None, swiglu_beta=None)
    layer = SimpleNamespace(
        activation=kind, moe_config=config, expert_map=None, apply_router_weight_on_input=router_weight_on_input
    )
    from ascend_plugin import detection
    from ascend_plugin.ops.formats import FRACTAL_NZ

    def on_device(weight: torch.Tensor) -> torch.Tensor:
        import torch_npu

        moved = weight.transpose(1, 2).contiguous().npu()
        nz = detection.current_chip().weight_format == "nz"
        return torch_npu.npu_format_cast(moved, FRACTAL_NZ) if nz else moved

    products = [
        moe.GroupedProduct(on_device(weight), bias.npu() if with_bias else None)
        for weight, bias in zip((up, down), biases, strict=True)
    ]
    found = moe.run_experts(layer, x.npu(), weights.npu(), ids.npu(), *products)

    expected = torch.zeros(tokens, width, dtype=torch.float64)
    for token in range(tokens):
        for place in range(k):
            expert, weight = int(ids[token, place]), float(weights[token, place])
            row = x[token].double() * (weight if router_weight_on_input else 1.0)
            hidden = up[expert].double() @ row + (biases[0][expert].double() if with_bias else 0.0)
            hidden = by_definition(activation, hidden)
            out = down[expert].double() @ hidden + (biases[1][expert].double() if with_bias else 0.0)
            expected[token] += out * (1.0 if router_weight_on_input else weight)
    return relative(found, expected)


def by_definition(activation: str, x: torch.Tensor) -> torch.Tensor:
    functional = torch.nn.functional
    if activation == "relu2_no_mul":
        return functional.relu(x).square()
    gate, up = x.chunk(2)
    if activation == "swigluoai":
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1.0) * gate * torch.sigmoid(1.702 * gate)
    return functional.silu(gate) * up


@CHIPS
def test_experts(npu: Npu) -> None:
    for activation, with_bias, on_input in (
        ("swigluoai", True, False),
        ("relu2_no_mul", False, False),
        ("silu", False, True),
        ("silu", True, False),
    ):
        assert npu.call(experts_error, activation, with_bias, on_input) < 3e-3, activation


def chosen(scoring: str, groups: int) -> tuple[float, float]:
    """(share of experts that agree, error of the weights) with a bias that changes the choice."""
    from types import SimpleNamespace

    from ascend_plugin.ops import expert_choice

    tokens, experts, k = 50, 32, 4
    logits, bias = draw(tokens, experts), draw(experts, seed=1) / 4
    scores = logits.double().sigmoid() if scoring == "sigmoid" else logits.double().softmax(-1)
    choice = scores + bias.double()
    if groups:
        best = choice.view(tokens, groups, -1).topk(2)[0].sum(-1).topk(groups // 2)[1]
        allowed = torch.zeros(tokens, groups).scatter_(1, best, 1.0).repeat_interleave(experts // groups, dim=1)
        choice = choice.masked_fill(allowed == 0, -torch.inf)
    ids = choice.topk(k)[1].sort()[0]
    expected = scores.gather(1, ids)
    expected = 2.5 * expected / expected.sum(-1, keepdim=True)
    if groups:
        layer = SimpleNamespace(
            topk=k,
            renormalize=True,
            num_expert_group=groups,
            topk_group=groups // 2,
            scoring_func=scoring,
            routed_scaling_factor=2.5,
        )
        weights, found = expert_choice.AscendGroupedTopk.forward_oot(layer, logits.npu(), logits.npu(), bias.npu())
    else:
        weights, found = expert_choice.fused_topk_bias(
            logits.npu(), logits.npu(), scoring, bias.npu(), k, True, routed_scaling_factor=2.5
        )
    order = found.cpu().long().argsort(dim=1)
    same = found.cpu().long().gather(1, order) == ids
    return float(same.float().mean()), relative(weights.cpu().gather(1, order), expected)


@CHIPS
def test_choice_by_bias_and_by_group(npu: Npu) -> None:
    for scoring in ("sigmoid", "softmax"):
        for groups in (0, 4):
            same, error = npu.call(chosen, scoring, groups)
            assert same == 1.0
            assert error < 1e-3


def latent_error() -> float:
    """Two requests with a past through the cache write and the attention in the latent space."""
    from vllm.v1.attention.backend import AttentionType

    from ascend_plugin.attention.latent import LatentAttention, LatentMetadata
    from ascend_plugin.attention.metadata import Phase

    rank, rope, heads, block, lengths = 64, 16, 4, 16, [20, 37]
    layer = LatentAttention(
        heads, rank + rope, 0.2, 1, None, None, "auto", None, AttentionType.DECODER, None, kv_lora_rank=rank
    )
    table = torch.tensor([[3, 1, 0], [2, 5, 4]], dtype=torch.int32)
    cache = torch.zeros(8, block, rank + rope, dtype=torch.float16).npu()
    past = [draw(length, rank + rope, seed=length).half() for length in lengths]
    for row, tokens in enumerate(past):
        slots = torch.tensor([int(table[row, place // block]) * block + place % block for place in range(len(tokens))])
        slots = torch.cat([slots.int(), torch.tensor([-1], dtype=torch.int32)])  # and a row of padding
        padded = torch.cat([tokens, tokens[:1]]).npu()
        layer.do_kv_cache_update(padded[:, :rank], padded[:, None, rank:], cache, slots.npu(), "auto", torch.ones(1))
    query = draw(2, heads, rank + rope).half()
    metadata = LatentMetadata(
        phase=Phase.DECODE,
        num_tokens=2,
        query_lens=torch.ones(2, dtype=torch.int32),
        seq_lens_host=torch.tensor(lengths, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32).npu(),
        block_table=table.npu(),
        slot_mapping=torch.empty(0),
        causal=True,
    )
    assert (metadata.num_actual_tokens, metadata.num_decode_tokens, metadata.num_decodes) == (2, 2, 2)
    assert metadata.decode is metadata and metadata.prefill is None and metadata.num_prefills == 0
    found, _ = layer.forward_mqa((query[..., :rank].npu(), query[..., rank:].npu()), cache, metadata, None)
    expected = torch.stack(
        [
            torch.softmax(query[row].double() @ tokens.double().T * 0.2, dim=-1) @ tokens[:, :rank].double()
            for row, tokens in enumerate(past)
        ]
    )
    return relative(found, expected)


@CHIPS
def test_latent_attention(npu: Npu) -> None:
    assert npu.call(latent_error) < 2e-3


def state_space_errors() -> dict[str, float]:
    from ascend_plugin import detection
    from ascend_plugin.ops import gated_delta_rule as rule
    from ascend_plugin.ops import state_space

    lengths, heads, groups, size, numbers = [70, 1, 130], 4, 2, 16, 32
    plan = rule.plan_chunks(lengths, 4, torch.device("npu"))
    on_host = rule.plan_chunks(lengths, 4, torch.device("cpu"))
    tokens = sum(lengths)
    errors = {}
    for name, channels, shared in (("heads", (heads, size), (groups,)), ("channels", (size,), ())):
        function: Any = getattr(state_space, f"{name}_chunked")
        arguments = [
            draw(tokens, *channels),
            torch.nn.functional.softplus(draw(tokens, channels[0], seed=1)),
            -torch.rand(heads if name == "heads" else (size, numbers), generator=torch.Generator().manual_seed(2)),
            draw(tokens, *shared, numbers, seed=3),
            draw(tokens, *shared, numbers, seed=4),
            draw(len(lengths), *channels, numbers, seed=5),
        ]
        more = (detection.current_chip().forms.compensated_products,) if name == "heads" else ()
        found = function(*(value.npu() for value in arguments), plan, *more)
        expected = function(*(value.double() for value in arguments), on_host)
        errors[name] = max(relative(one, other) for one, other in zip(found, expected, strict=True))
    return errors


@CHIPS
def test_state_spaces(npu: Npu) -> None:
    errors = npu.call(state_space_errors)
    assert errors["channels"] < 1e-5
    assert errors["heads"] < 2e-3  # of products whose operands may be rounded to float16
