"""The chunked form of the gated delta rule against its definition, token by token, in fp64: only mathematics counts."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from ascend_plugin.ops import gated_delta_rule as rule

CPU = torch.device("cpu")


def inputs(tokens: int, key_heads: int = 2, heads: int = 4, keys: int = 32, values: int = 16, alike: float = 0.0):
    generator = torch.Generator().manual_seed(tokens)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k = draw(tokens, key_heads, keys), draw(tokens, key_heads, keys) * (1 - alike) + alike
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    return q, k, draw(tokens, heads, values), -draw(tokens, heads).abs() * 0.3, draw(tokens, heads).sigmoid()


def by_definition(q, k, v, g, rate, state):
    """One sequence, one token at a time, written from the rule's definition."""
    repeats = v.shape[1] // k.shape[1]
    outputs = []
    for t in range(len(q)):
        key, query = k[t].repeat_interleave(repeats, 0), q[t].repeat_interleave(repeats, 0) * q.shape[-1] ** -0.5
        state = state * g[t].exp()[:, None, None]
        error = v[t] - torch.einsum("hvk,hk->hv", state, key)
        state = state + rate[t][:, None, None] * torch.einsum("hv,hk->hvk", error, key)
        outputs.append(torch.einsum("hvk,hk->hv", state, query))
    return torch.stack(outputs), state


@pytest.mark.parametrize("lengths", [[1], [63], [64], [65], [200], [5, 130, 64, 1, 129]])
@pytest.mark.parametrize("alike", [0.0, 0.9], ids=["different keys", "similar keys"])
def test_chunks_agree_with_the_definition(lengths: list[int], alike: float) -> None:
    q, k, v, g, rate = inputs(sum(lengths), alike=alike)
    states = torch.randn(len(lengths), 4, 16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = rule.plan_chunks(lengths, 4, CPU)
    outputs, final = rule.chunked(q, k, v, g, rate, states, plan)
    for index, part in enumerate(torch.arange(sum(lengths)).split(lengths)):
        expected, state = by_definition(q[part], k[part], v[part], g[part], rate[part], states[index])
        torch.testing.assert_close(outputs[part], expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(final[index], state, rtol=1e-9, atol=1e-9)


def test_a_prompt_in_pieces_gives_what_it_gives_whole() -> None:
    q, k, v, g, rate = inputs(300)
    state = torch.zeros(1, 4, 16, 32, dtype=torch.float64)
    whole, final = rule.chunked(q, k, v, g, rate, state, rule.plan_chunks([300], 4, CPU))
    pieces = []
    for part in torch.arange(300).split([128, 100, 72]):
        plan = rule.plan_chunks([len(part)], 4, CPU)
        piece, state = rule.chunked(q[part], k[part], v[part], g[part], rate[part], state, plan)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), whole)
    torch.testing.assert_close(state, final)


def test_steps_continue_chunks() -> None:
    q, k, v, g, rate = inputs(70)
    state = torch.zeros(1, 4, 16, 32, dtype=torch.float64)
    whole, final = rule.chunked(q, k, v, g, rate, state, rule.plan_chunks([70], 4, CPU))
    _, state = rule.chunked(*(x[:65] for x in (q, k, v, g, rate)), state, rule.plan_chunks([65], 4, CPU))
    for t in range(65, 70):
        output, state = rule.step(*(x[t : t + 1] for x in (q, k, v, g, rate)), state)
        torch.testing.assert_close(output[0], whole[t])
    torch.testing.assert_close(state, final)


def test_the_triangular_inverse_is_stable_where_a_power_series_is_not() -> None:
    below = torch.ones(64, 64).tril(-1)  # all keys equal: powers of it reach 10^17
    product = rule.inverse_of_unit_lower(below) @ (torch.eye(64) + below)
    torch.testing.assert_close(product, torch.eye(64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1], [2, 3], [7, 1, 4]])
def test_convolution_agrees_with_torch_over_pieces_and_steps(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator)
    sequences = [torch.randn(length + 2, 6, generator=generator) for length in lengths]
    state = torch.zeros(len(lengths), 3, 6)
    plan = rule.plan_chunks(lengths, 4, CPU)
    packed = torch.cat([x[:-2] for x in sequences])
    outputs, state = rule.convolve(packed, weight, bias, state, plan)
    found = list(outputs.split(lengths))
    for extra in (-2, -1):
        last, state = rule.convolve_step(torch.stack([x[extra] for x in sequences]), weight, bias, state)
        found = [torch.cat([before, row.unsqueeze(0)]) for before, row in zip(found, last, strict=True)]
    for x, outcome in zip(sequences, found, strict=True):
        padded = torch.nn.functional.pad(x.t().unsqueeze(0), (3, 0))
        expected = torch.nn.functional.conv1d(padded, weight.unsqueeze(1), bias, groups=6)[0].t()
        torch.testing.assert_close(outcome, torch.nn.functional.silu(expected))


def error_on_chip(alike: float, rounded: bool) -> tuple[float, float]:
    """Of the outputs and of the last state against fp64, by the root of the mean square; slow decay, high rates."""
    tokens = 512
    q, k, v, g, rate = inputs(tokens, 1, 2, 128, 128)
    common = torch.randn(1, 1, 128, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    k = k * (1 - alike) + alike * common / common.norm()
    k = k / k.norm(dim=-1, keepdim=True)
    g, rate = g * 0.003, (rate * 2 + 3).sigmoid()
    expected, final = by_definition(q, k, v, g, rate, torch.zeros(2, 128, 128, dtype=torch.float64))
    device = torch.device("npu")
    parts = (x.float().to(device) for x in (q, k, v, g, rate))
    state = torch.zeros(1, 2, 128, 128, device=device)
    outputs, found = rule.chunked(*parts, state, rule.plan_chunks([tokens], 4, device), rounded)

    def error(x: torch.Tensor, reference: torch.Tensor) -> float:
        return float((x.cpu() - reference).pow(2).mean().sqrt() / reference.pow(2).mean().sqrt())

    return error(outputs, expected), error(found[0], final)


@pytest.mark.parametrize(
    ("alike", "of_outputs", "of_state"), [(0.0, 8e-4, 5e-4), (0.9, 2e-3, 1.5e-3), (0.99, 4e-3, 2e-3)]
)
@pytest.mark.chips("310P3")
def test_the_error_of_float16_operands_stays_that_of_float16(
    npu: Npu, alike: float, of_outputs: float, of_state: float
) -> None:
    outputs, state = npu.call(error_on_chip, alike, True)
    plain_outputs, plain_state = npu.call(error_on_chip, alike, False)
    print(
        f"alike {alike}: outputs {outputs:.1e} (plain {plain_outputs:.1e}), state {state:.1e} (plain {plain_state:.1e})"
    )
    assert outputs < min(of_outputs, plain_outputs * 1.01)
    assert state < min(of_state, plain_state)


@pytest.mark.chips("910B3")
def test_where_products_are_float32_the_error_is_that_of_float32(npu: Npu) -> None:
    assert max(npu.call(error_on_chip, 0.99, False)) < 1e-5
