"""Layers of torch are made on a 310P without drawing a weight on the chip, which hangs there (rule device_random)."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from ascend_plugin.weight_upload import HostDraws


def widths_of_weights() -> tuple[float, float, float]:
    with HostDraws(), torch.device("npu"):
        layer = torch.nn.Linear(64, 8)
        picture = torch.nn.Conv2d(3, 4, 2)
        words = torch.nn.Embedding(100, 50)
    torch.npu.synchronize()
    return tuple(float(each.weight.detach().cpu().std()) for each in (layer, picture, words))  # type: ignore[return-value]


@pytest.mark.chips("310P3")
def test_weights_are_drawn_on_the_host(npu: Npu) -> None:
    """Uniform over +-1/sqrt(inputs) for linear layers and convolutions, normal for embeddings."""
    linear, convolution, embedding = npu.call(widths_of_weights)
    assert linear == pytest.approx(64**-0.5 / 3**0.5, rel=0.2)
    assert convolution == pytest.approx(12**-0.5 / 3**0.5, rel=0.35)
    assert embedding == pytest.approx(1.0, rel=0.1)
