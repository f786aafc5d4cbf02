"""Rotary position embedding against complex multiplication in float32."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup


def angles(tokens: int, half: int) -> torch.Tensor:
    return torch.outer(torch.randint(0, 500, (tokens,)).float(), 10000.0 ** (-torch.arange(half) / half))


def rotate(x: torch.Tensor, theta: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """x [tokens, heads, dim], theta [tokens, rotary / 2]: pairs as complex numbers, turned by theta."""
    rotary = 2 * theta.shape[1]
    turned, rest = x.float()[..., :rotary], x.float()[..., rotary:]
    pairs = turned.unflatten(-1, (-1, 2)) if interleaved else turned.unflatten(-1, (2, -1)).transpose(-1, -2)
    spun = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(theta), theta)[:, None]
    )
    joined = spun.flatten(-2) if interleaved else spun.transpose(-1, -2).flatten(-2)
    return torch.cat((joined, rest), -1)


def table(theta: torch.Tensor, interleaved: bool) -> tuple[torch.Tensor, torch.Tensor]:
    full = theta.repeat_interleave(2, -1) if interleaved else torch.cat((theta, theta), -1)
    return full.cos(), full.sin()


def check_apply(head_size: int, rotary: int) -> None:
    torch_npu = setup()
    theta = angles(11, rotary // 2)
    cos, sin = (part.half() for part in table(theta, False))
    query, key = torch.randn(11, 9, head_size).half(), torch.randn(11, 3, head_size).half()
    expected_query, expected_key = rotate(query, theta, False), rotate(key, theta, False)
    on_chip = [tensor.npu()[None] for tensor in (query, key)]
    torch_npu.npu_apply_rotary_pos_emb(*on_chip, cos.npu()[None, :, None], sin.npu()[None, :, None])
    assert_close(on_chip[0][0], expected_query, "BSND query", 2)
    assert_close(on_chip[1][0], expected_key, "BSND key", 2)
    on_chip = [query.npu(), key.npu()]
    torch_npu.npu_apply_rotary_pos_emb(*on_chip, cos.npu()[:, None], sin.npu()[:, None], layout="TND")
    assert_close(on_chip[0], expected_query, "TND query", 2)


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize(("head_size", "rotary"), [(128, 128), (64, 64), (128, 64)])
def test_apply_rotary_pos_emb(npu: Npu, head_size: int, rotary: int) -> None:
    npu.call(check_apply, head_size, rotary)


def check_rotary_mul(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for interleaved in (False, True):
        theta = angles(7, 40)
        x = torch.randn(7, 5, 80).to(dtype)
        cos, sin = (part.to(dtype).npu()[None, :, None] for part in table(theta, interleaved))
        y = torch_npu.npu_rotary_mul(x.npu()[None], cos, sin, rotary_mode="interleave" if interleaved else "half")
        assert_close(y[0], rotate(x, theta, interleaved), f"interleaved={interleaved}", 3)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_rotary_mul(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_rotary_mul, dtype)


def check_mrope() -> None:
    torch_npu = setup()
    half, head = 32, 80
    frequencies = 10000.0 ** (-torch.arange(half) / half)
    every = torch.outer(torch.arange(100.0), frequencies)
    cache = torch.cat((every.cos(), every.sin()), -1).half()
    query, key = torch.randn(6, 4 * head).half(), torch.randn(6, 2 * head).half()
    positions = torch.randint(0, 100, (3, 6))
    sections = [12, 12, 8]
    chosen = torch.cat([every[positions[i]][:, sum(sections[:i]) : sum(sections[: i + 1])] for i in range(3)], -1)
    for mode, interleaved in (("half", False), ("interleave", True)):
        out, _ = torch_npu.npu_mrope(
            positions.npu(), query.npu(), key.npu(), cache.npu(), head, mrope_section=sections, rotary_mode=mode
        )
        assert_close(out, rotate(query.view(6, 4, head), chosen, interleaved).flatten(1), f"mrope {mode}", 3)
        out, key_out = torch_npu.npu_mrope(
            positions[0].npu(), query.npu(), key.npu(), cache.npu(), head, rotary_mode=mode
        )
        assert_close(
            out, rotate(query.view(6, 4, head), every[positions[0]], interleaved).flatten(1), f"rope {mode}", 3
        )
        assert_close(
            key_out, rotate(key.view(6, 2, head), every[positions[0]], interleaved).flatten(1), f"rope key {mode}", 3
        )


@pytest.mark.chips("910B3")
def test_positions_look_up_the_cache_by_section(npu: Npu) -> None:
    npu.call(check_mrope)


def refusals() -> dict[str, str]:
    torch_npu = setup()
    query, table_row = torch.ones(1, 4, 2, 96).half().npu(), torch.ones(1, 4, 1, 96).half().npu()
    return {
        "head size": refusal(lambda: torch_npu.npu_apply_rotary_pos_emb(query, query.clone(), table_row, table_row)),
        "mode": refusal(
            lambda: torch_npu.npu_apply_rotary_pos_emb(
                query, query.clone(), table_row, table_row, rotary_mode="quarter"
            )
        ),
    }


@pytest.mark.chips("310P3")
def test_unsupported_head_sizes_are_refused(npu: Npu) -> None:
    assert "supports 64 and 128" in npu.call(refusals)["head size"]
