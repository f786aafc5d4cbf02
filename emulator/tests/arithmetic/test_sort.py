"""Sorting against PyTorch's stable sort, element for element."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .on_chip import setup

SHAPES = [((1,), 0), ((3, 511), -1), ((2, 512), 1), ((700, 3), 0), ((2, 5000, 2), 1), ((4, 0), 1), ((2, 49152), -1)]


def check_order(dtype: torch.dtype) -> None:
    setup()
    for shape, dim in SHAPES:
        x = torch.randn(shape).mul(30).round().div(30).to(dtype)  # with ties
        flat = x.view(-1)
        special = torch.tensor([float("nan"), -0.0, 0.0, float("inf"), -float("inf"), float("nan")], dtype=dtype)
        if flat.numel() > 100:
            flat[torch.randperm(flat.numel())[: 6 * 10]] = special.repeat(10)
        for descending in (False, True):
            values, indices = torch.sort(x.npu(), dim=dim, descending=descending, stable=True)
            expected_values, expected_indices = torch.sort(x, dim=dim, descending=descending, stable=True)
            assert torch.equal(indices.cpu(), expected_indices), (shape, descending)
            torch.testing.assert_close(values.cpu(), expected_values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_order_of_floats(npu: Npu, dtype: torch.dtype) -> None:
    npu.call(check_order, dtype)


@pytest.mark.chips("910B3")
def test_order_of_bfloat16(npu: Npu) -> None:
    npu.call(check_order, torch.bfloat16)


def check_transposed() -> None:
    setup()
    x = torch.randn(600, 40)
    values, indices = torch.sort(x.npu().t(), dim=1, stable=True)
    expected = torch.sort(x.t(), dim=1, stable=True)
    assert torch.equal(values.cpu(), expected.values) and torch.equal(indices.cpu(), expected.indices)


@pytest.mark.chips("310P3")
def test_order_of_a_transposed_tensor(npu: Npu) -> None:
    npu.call(check_transposed)
