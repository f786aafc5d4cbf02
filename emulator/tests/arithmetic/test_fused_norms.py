"""Normalization fused with what surrounds it: addition, quantization, groups of channels, SiLU, a latent cache."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup


def rms_norm(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    x = x.float()
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * gamma.float()


def assert_steps(found: torch.Tensor, wanted: torch.Tensor, share: float = 0.02) -> None:
    """int8 values one step from the reference's at most, and only a small share of them."""
    assert found.dtype == torch.int8
    difference = (found.cpu().int() - wanted.round().clamp(-128, 127).int()).abs()
    assert difference.max() <= 1, difference.max()
    assert (difference != 0).float().mean() < share  # where the value lies between two steps


def check_static(dtype: torch.dtype, parameters: torch.dtype) -> None:
    torch_npu = setup()
    for rows, columns in [(1, 64), (9, 512)]:
        x1, x2 = torch.randn(rows, columns).to(dtype), torch.randn(rows, columns).to(dtype)
        gamma, scale = (torch.rand(columns) + 0.5).to(dtype), (torch.rand(columns) * 0.02 + 0.02).to(parameters)
        point = torch.randint(-9, 9, (columns,), dtype=torch.int32)
        y1, _, total = torch_npu.npu_add_rms_norm_quant(
            x1.npu(), x2.npu(), gamma.npu(), scale.npu(), point.npu(), epsilon=1e-6
        )
        assert torch.equal(total.cpu(), x1 + x2)
        # float16 is rounded before gamma: of 100 steps that is a twentieth of one
        assert_steps(y1, rms_norm(x1 + x2, gamma) / scale.float() + point, 0.1)


@pytest.mark.chips("310P3", "910B3")
def test_added_and_quantized_float16(npu: Npu) -> None:
    npu.call(check_static, torch.float16, torch.float32)


def check_dynamic(dtype: torch.dtype) -> None:
    torch_npu = setup()
    x1, x2 = torch.randn(7, 256).to(dtype), torch.randn(7, 256).to(dtype)
    gamma, first, second = ((torch.rand(256) + 0.5).to(dtype) for _ in range(3))
    y1, y2, total, scale1, scale2 = torch_npu.npu_add_rms_norm_dynamic_quant(
        x1.npu(), x2.npu(), gamma.npu(), smooth_scale1=first.npu(), smooth_scale2=second.npu(), epsilon=1e-6
    )
    assert_close(total, x1.float() + x2.float(), "sum")
    for y, scale, smooth in ((y1, scale1, first), (y2, scale2, second)):
        moved = rms_norm(x1.float() + x2.float(), gamma) * smooth.float()
        expected = moved.abs().amax(-1) / 127
        torch.testing.assert_close(scale.cpu(), expected, rtol=1e-2, atol=1e-5)
        assert ((y.cpu().float() * scale.cpu()[:, None] - moved).abs() <= expected[:, None] * 1.6).all()


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_added_and_quantized_by_row(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_dynamic, dtype)


def check_groups() -> None:
    torch_npu = setup()
    for shape, groups in [((2, 8, 5, 7), 4), ((3, 6, 9), 1), ((1, 32, 4, 4, 2), 32)]:
        x, weight, bias = torch.randn(shape) * 3 + 1, torch.randn(shape[1]), torch.randn(shape[1])
        expected = F.group_norm(x, groups, weight, bias, 1e-5)
        assert_close(F.group_norm(x.npu(), groups, weight.npu(), bias.npu(), 1e-5), expected, f"group_norm {shape}")
        y, mean, _ = torch_npu.npu_group_norm_silu(x.npu(), weight.npu(), bias.npu(), groups, 1e-5)
        assert_close(y, F.silu(expected), f"group_norm_silu {shape}")
        assert_close(mean, x.reshape(shape[0], groups, -1).mean(-1), "mean")
    x, mean, variance = torch.randn(4, 6, 5, 3), torch.randn(6), torch.rand(6) + 0.5
    weight, bias = torch.randn(6), torch.randn(6)
    found = F.batch_norm(x.npu(), mean.npu(), variance.npu(), weight.npu(), bias.npu())
    assert_close(found, F.batch_norm(x, mean, variance, weight, bias), "batch_norm")


@pytest.mark.chips("310P3", "910B3")
def test_groups_of_channels(npu: Npu) -> None:
    npu.call(check_groups)


def check_add_layer_norm(dtype: torch.dtype) -> None:
    torch_npu = setup()
    x1, x2 = torch.randn(5, 3, 96).to(dtype), torch.randn(5, 3, 96).to(dtype)
    gamma, beta = torch.randn(96).to(dtype), torch.randn(96).to(dtype)
    y, mean, _, total = torch_npu.npu_add_layer_norm(x1.npu(), x2.npu(), gamma.npu(), beta.npu(), 1e-5, True)
    added = x1.float() + x2.float()
    assert_close(y, F.layer_norm(added, (96,), gamma.float(), beta.float(), 1e-5), "y", 2)
    assert_close(mean.reshape(5, 3), added.mean(-1), "mean")
    assert_close(total, added, "sum")


@pytest.mark.chips("310P3", "910B3")
def test_added_before_layer_norm(npu: Npu) -> None:
    npu.call(check_add_layer_norm, torch.float16)


def check_swiglu() -> None:
    """Sums of an int8 product, through scales, SwiGLU and back to int8, with the rows of three experts."""
    torch_npu = setup()
    counts, half = [4, 0, 5], 64
    x = torch.randint(-3000, 3000, (9, 2 * half), dtype=torch.int32)
    weight_scale, row_scale = torch.rand(3, 2 * half) * 1e-3, torch.rand(9) + 0.5
    smooth = torch.rand(3, half) + 0.5
    y, scale = torch_npu.npu_dequant_swiglu_quant(
        x.npu(),
        weight_scale=weight_scale.npu(),
        activation_scale=row_scale.npu(),
        quant_scale=smooth.npu(),
        group_index=torch.tensor(counts).npu(),
        activate_left=True,
        quant_mode=1,
    )
    expert = torch.arange(3).repeat_interleave(torch.tensor(counts))
    values = x.float() * weight_scale[expert] * row_scale[:, None]
    moved = F.silu(values[:, :half]) * values[:, half:] * smooth[expert]
    torch.testing.assert_close(scale.cpu(), moved.abs().amax(-1) / 127)
    assert_steps(y, moved / scale.cpu()[:, None])


@pytest.mark.chips("910B3")
def test_swiglu_between_scales(npu: Npu) -> None:
    npu.call(check_swiglu)


def check_latent_cache(mode: str) -> None:
    torch_npu = setup()
    tokens, blocks, size = 9, 3, 16
    kv, gamma = torch.randn(tokens, 1, 1, 576).bfloat16(), (torch.rand(512) + 0.5).bfloat16()
    angle = (torch.rand(tokens, 32) * 6).repeat(1, 2)
    cos, sin = angle.cos().bfloat16().view(tokens, 1, 1, 64), angle.sin().bfloat16().view(tokens, 1, 1, 64)
    slots = torch.randperm(blocks * size)[:tokens]
    rope_cache, latent_cache = (torch.zeros(blocks, size, 1, width).bfloat16().npu() for width in (64, 512))
    torch_npu.npu_kv_rmsnorm_rope_cache(
        kv.npu(),
        gamma.npu(),
        cos.npu(),
        sin.npu(),
        slots.npu(),
        rope_cache,
        latent_cache,
        epsilon=1e-6,
        cache_mode=mode,
    )
    even, odd = kv.float()[..., 512::2], kv.float()[..., 513::2]
    rotary = torch.cat((even, odd), -1) * cos.float() + torch.cat((-odd, even), -1) * sin.float()
    for cache, expected in ((rope_cache, rotary), (latent_cache, rms_norm(kv[..., :512], gamma))):
        width, rows = cache.shape[-1], cache.cpu()
        if mode == "PA_NZ":
            rows = rows.reshape(blocks, width // 16, size, 16).transpose(1, 2)
        assert_close(rows.reshape(-1, width)[slots], expected.view(tokens, width), mode, 2)
        assert rows.reshape(-1, width).count_nonzero(-1).ne(0).sum() == tokens


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("mode", ["PA_BNSD", "PA_NZ"])
def test_latent_cache(npu: Npu, mode: str) -> None:
    npu.call(check_latent_cache, mode)


def refusals() -> dict[str, str]:
    torch_npu = setup()
    x, gamma = torch.ones(2, 64).half().npu(), torch.ones(64).half().npu()
    scale = torch.ones(64).npu()
    return {
        "divides": refusal(lambda: torch_npu.npu_add_rms_norm_quant(x, x, gamma, scale, None, div_mode=False)),
        "scale": refusal(lambda: torch_npu.npu_add_rms_norm_quant(x, x, gamma, scale[:32].contiguous(), None)),
        "groups": refusal(lambda: torch_npu.npu_group_norm_silu(torch.ones(1, 6, 4).npu(), None, None, 4)),
    }


@pytest.mark.chips("310P3", "910B3")
def test_broken_rules_are_named(npu: Npu) -> None:
    messages = npu.call(refusals)
    assert "divMode is false" in messages["divides"]
    assert "scales have 32 elements" in messages["scale"]
    assert "not refused" not in messages["groups"]
