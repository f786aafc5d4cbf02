"""Operators that torch_npu calls in place of its usual ones, or that few programs meet, against torch on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ascend_emulator.launcher import Machine
from ascend_emulator.pytest_plugin import Npu
from ascend_emulator.worker import Worker


def fast_layer_norm() -> tuple[float, dict[str, int]]:
    """The largest error of a LayerNorm by compatible kernels, and what was launched."""
    import torch
    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.use_compatible_impl(True)
    x, weight, bias = torch.randn(3, 5, 24), torch.randn(24), torch.randn(24)
    on_chip = [each.npu() for each in (x, weight, bias)]
    torch.npu.synchronize()
    counters.reset_stats()
    actual = torch.native_layer_norm(on_chip[0], [24], on_chip[1], on_chip[2], 1e-5)
    expected = torch.native_layer_norm(x, [24], weight, bias, 1e-5)
    error = max(float((a.cpu() - e).abs().max()) for a, e in zip(actual, expected, strict=True))
    return error, counters.stats()["launches"]


def test_layer_norm_by_compatible_kernels(emulated: Callable[..., Machine]) -> None:
    worker = Worker(emulated(chip="910B3").environment)
    try:
        error, launches = worker.call(fast_layer_norm)
    finally:
        worker.close()
    assert error < 1e-5
    assert launches["aclnnFastLayerNorm"] == 1


def solve(upper: bool, transpose: bool, unitriangular: bool) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    matrices = torch.randn(4, 1, 7, 7) / 7 + torch.eye(7)
    right = torch.randn(3, 7, 2)
    actual = torch.triangular_solve(right.npu(), matrices.npu(), upper, transpose, unitriangular)
    expected = torch.triangular_solve(right.double(), matrices.double(), upper, transpose, unitriangular)
    return [each.cpu().numpy() for each in actual], [each.numpy() for each in expected]


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("unitriangular", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_triangular_systems(npu: Npu, upper: bool, transpose: bool, unitriangular: bool) -> None:
    actual, expected = npu.call(solve, upper, transpose, unitriangular)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert abs(a - e).max() < 1e-5
