"""The RMSNorm family and gated activations against float32 on the CPU."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import assert_close, refusal, setup


def rms_norm(x: torch.Tensor, gamma: torch.Tensor, epsilon: float) -> torch.Tensor:
    x = x.float()
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * gamma.float()


def check_rms_norm(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for shape in [(1, 576), (7, 577), (2, 3, 128), (64, 4096), (5, 16)]:
        x, other, gamma = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype), torch.rand(shape[-1]).to(dtype)
        y, rstd = torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-5)
        assert_close(y, rms_norm(x, gamma, 1e-5), f"rms_norm {shape}", 2)
        expected = (x.float().square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        torch.testing.assert_close(rstd.cpu().reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
        y, _, total = torch_npu.npu_add_rms_norm(x.npu(), other.npu(), gamma.npu(), 1e-5)
        assert_close(y, rms_norm(x + other, gamma, 1e-5), f"add_rms_norm {shape}", 2)
        assert torch.equal(total.cpu(), x + other)
    x = torch.randn(6, 4, 32).to(dtype)
    strided = x.npu().transpose(0, 1)
    y, _ = torch_npu.npu_rms_norm(strided, torch.ones(32).to(dtype).npu(), 1e-6)
    assert_close(y, rms_norm(x.transpose(0, 1), torch.ones(32), 1e-6), "strided", 2)


@pytest.mark.chips("310P3", "910B3")
def test_rms_norm_float16(npu: Npu) -> None:
    npu.call(check_rms_norm, torch.float16)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_rms_norm_other_types(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_rms_norm, dtype)


def check_gemma() -> None:
    torch_npu = setup()
    x, gamma = torch.randn(5, 256).half(), torch.randn(256).half() / 4
    y, _ = torch_npu.npu_gemma_rms_norm(x.npu(), gamma.npu(), 1e-6)
    assert_close(y, rms_norm(x, 1 + gamma.float(), 1e-6), "gemma", 2)


@pytest.mark.chips("910B3")
def test_gemma_rms_norm_adds_one_to_gamma(npu: Npu) -> None:
    npu.call(check_gemma)


def check_swiglu(dtype: torch.dtype) -> None:
    torch_npu = setup()
    for shape, dim in [((1, 3072), -1), ((9, 64), 1), ((3, 128, 32), 1), ((2, 5, 192), -1)]:
        x = (4 * torch.randn(shape)).to(dtype)
        gate, value = x.float().chunk(2, dim)
        assert_close(
            torch_npu.npu_swiglu(x.npu(), dim), torch.nn.functional.silu(gate) * value, f"swiglu {shape} {dim}", 2
        )
    extreme = torch.tensor([[-60000.0, -100.0, 100.0, 60000.0] * 8 + [1.0] * 32]).to(dtype)
    gate, value = extreme.float().chunk(2, -1)
    assert_close(torch_npu.npu_swiglu(extreme.npu()), torch.nn.functional.silu(gate) * value, "extreme values")


@pytest.mark.chips("310P3", "910B3")
def test_swiglu_float16(npu: Npu) -> None:
    npu.call(check_swiglu, torch.float16)


@pytest.mark.chips("910B3")
def test_swiglu_bfloat16(npu: Npu) -> None:
    npu.call(check_swiglu, torch.bfloat16)


def refusals() -> dict[str, str]:
    torch_npu = setup()
    half = torch.ones(3, 40).half().npu()
    return {
        "swiglu": refusal(lambda: torch_npu.npu_swiglu(half)),
        "short row": refusal(lambda: torch_npu.npu_rms_norm(half[:, :8].contiguous(), torch.ones(8).half().npu())),
        "gamma": refusal(lambda: torch_npu.npu_rms_norm(half, torch.ones(20).half().npu())),
    }


@pytest.mark.chips("310P3")
def test_rules_of_310p_are_enforced(npu: Npu) -> None:
    texts = npu.call(refusals)
    assert "multiple of 32" in texts["swiglu"]
    assert "must take at least 32" in texts["short row"]
    assert "must equal the last dimensions of x" in texts["gamma"]
