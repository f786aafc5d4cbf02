"""Layers of torch are made on a chip without drawing a weight there."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from ascend_plugin.weight_upload import NoRandomWeights


def layer_s_weights() -> tuple[float, float]:
    with NoRandomWeights(), torch.device("npu"):
        layer = torch.nn.Linear(8, 8)
        picture = torch.nn.Conv2d(3, 4, 2)
    torch.npu.synchronize()
    return float(layer.weight.abs().sum()), float(picture.bias.abs().sum())


@pytest.mark.chips("310P3", "910B3")
def test_no_weight_is_drawn(npu: Npu) -> None:
    """On a 310P a drawn one would hang (rule device_random)."""
    assert npu.call(layer_s_weights) == (0.0, 0.0)
