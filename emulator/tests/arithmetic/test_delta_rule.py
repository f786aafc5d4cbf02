"""The gated delta rule token by token, and the batched product that latent attention reads its values through."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, setup


def step(state: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor):
    """One token of all heads: state [heads, value, key]; returns the output [heads, value] and the new state."""
    state = state * g.exp()[:, None, None]
    update = beta[:, None] * (v - torch.einsum("hvk,hk->hv", state, k))
    state = state + update[:, :, None] * k[:, None, :]
    return torch.einsum("hvk,hk->hv", state, q), state


def inputs(tokens: int, key_heads: int, heads: int, key_dim: int, value_dim: int) -> tuple[torch.Tensor, ...]:
    query, key = (
        torch.nn.functional.normalize(torch.randn(tokens, key_heads, key_dim), dim=-1).bfloat16() for _ in "qk"
    )
    value = torch.randn(tokens, heads, value_dim).bfloat16()
    return query, key, value, -torch.rand(tokens, heads), torch.rand(tokens, heads).bfloat16()


def check_recurrent() -> None:
    torch_npu = setup()
    lengths, accepted, heads = [2, 1, 3], [2, 1, 1], 4
    tokens, scale = sum(lengths), 0.25
    query, key, value, g, beta = inputs(tokens, 2, heads, 32, 48)
    state = torch.randn(9, heads, 48, 32).bfloat16()
    slots = torch.randperm(9)[:tokens]
    on_chip = state.npu()
    output = torch_npu.npu_recurrent_gated_delta_rule(
        query.npu(),
        key.npu(),
        value.npu(),
        on_chip,
        beta=beta.npu(),
        scale=scale,
        actual_seq_lengths=torch.tensor(lengths, dtype=torch.int32).npu(),
        ssm_state_indices=slots.int().npu(),
        num_accepted_tokens=torch.tensor(accepted, dtype=torch.int32).npu(),
        g=g.npu(),
    )
    wide = [tensor.float().repeat_interleave(2, 1) for tensor in (query, key)]
    expected, kept, begin = torch.zeros(tokens, heads, 48), state.float().clone(), 0
    for length, taken in zip(lengths, accepted, strict=True):
        current = state[slots[begin + taken - 1]].float()
        for t in range(begin, begin + length):
            expected[t], current = step(
                current, wide[0][t] * scale, wide[1][t], value[t].float(), g[t], beta[t].float()
            )
            kept[slots[t]] = current
        begin += length
    assert_close(output, expected, "output", 2)
    assert_close(on_chip, kept, "states", 2)


@pytest.mark.chips("910B3")
def test_recurrent(npu: Npu) -> None:
    npu.call(check_recurrent)


def check_chunked() -> None:
    torch_npu = setup()
    lengths, heads = [70, 5], 4
    query, key, value, g, beta = inputs(sum(lengths), 2, heads, 32, 48)
    state = torch.randn(2, heads, 48, 32).bfloat16()
    output, final = torch_npu.npu_chunk_gated_delta_rule(
        query.npu(),
        key.npu(),
        value.npu(),
        beta=beta.npu(),
        initial_state=state.npu(),
        actual_seq_lengths=torch.tensor(lengths, dtype=torch.int32).npu(),
        scale=0.25,
        g=g.npu(),
    )
    wide = [tensor.float().repeat_interleave(2, 1) for tensor in (query, key)]
    expected, begin = torch.zeros(sum(lengths), heads, 48), 0
    for b, length in enumerate(lengths):
        current = state[b].float()
        for t in range(begin, begin + length):
            expected[t], current = step(current, wide[0][t] * 0.25, wide[1][t], value[t].float(), g[t], beta[t].float())
        assert_close(final[b], current, "final state", 2)
        begin += length
    assert_close(output, expected, "output", 2)


@pytest.mark.chips("910B3")
def test_chunked(npu: Npu) -> None:
    npu.call(check_chunked)


def check_transposed_product(dtype: torch.dtype) -> None:
    torch_npu = setup()
    x, weight = torch.randn(9, 4, 64).to(dtype), torch.randn(4, 64, 32).to(dtype)  # [rows, batch, k], [batch, k, n]
    expected = torch.einsum("mbk,bkn->mbn", x.float(), weight.float())
    y = torch_npu.npu_transpose_batchmatmul(
        x.npu(), weight.npu(), perm_x1=[1, 0, 2], perm_x2=[0, 1, 2], perm_y=[1, 0, 2]
    )
    assert_close(y.reshape(9, 4, 32), expected, "batch second", 8)
    y = torch_npu.npu_transpose_batchmatmul(
        x.transpose(0, 1).contiguous().npu(),
        weight.npu(),
        perm_x1=[0, 1, 2],
        perm_x2=[0, 1, 2],
        perm_y=[1, 0, 2],
        batch_split_factor=2,
    )
    assert_close(y, expected.reshape(9, 2, 64).transpose(0, 1), "two parts", 8)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_transposed_product(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_transposed_product, dtype)
