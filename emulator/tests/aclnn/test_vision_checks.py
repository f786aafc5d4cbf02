"""Operators on images: what PyTorch computes runs and agrees; sizes that do not go together are refused in phase 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ascend_emulator.pytest_plugin import Npu

from .direct import Answer, Chip, Tensor

REFUSED = 161002
IMAGES = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
VOLUMES = torch.randn(2, 4, 5, 6, 4, generator=torch.Generator().manual_seed(1))
GRID = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1
GRID_3D = torch.rand(2, 3, 5, 2, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
KERNELS = torch.randn(8, 1, 3, 2, generator=torch.Generator().manual_seed(4))
STEPS = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(5))
TBC = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(6))
THETA = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(7))
POOLED, PLACES = F.max_pool2d(IMAGES, 2, return_indices=True)
POOLED_3D, PLACES_3D = F.max_pool3d(VOLUMES, 2, return_indices=True)
WINDOW = {"kernelSize": [3, 2], "stride": [2, 1], "padding": [1, 0], "dilation": [1, 2]}
MAX_2D = F.max_pool2d(IMAGES, (3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True, return_indices=True)
MAX_3D = F.max_pool3d(VOLUMES, 2, 2, 1, return_indices=True)

Call = tuple[dict[str, Any], str, torch.Tensor]  # arguments, the output's name, what it must hold
CALLS: dict[str, Call] = {
    "AdaptiveAvgPool2d": ({"self": IMAGES, "outputSize": [3, 5]}, "out", F.adaptive_avg_pool2d(IMAGES, (3, 5))),
    "AdaptiveAvgPool3d": ({"self": VOLUMES, "outputSize": [2, 3, 1]}, "out", F.adaptive_avg_pool3d(VOLUMES, (2, 3, 1))),
    "AvgPool2d": (
        {"self": IMAGES, "kernelSize": [3], "strides": [], "paddings": [1], "ceilMode": True, "countIncludePad": True},
        "out",
        F.avg_pool2d(IMAGES, 3, padding=1, ceil_mode=True),
    ),
    "AvgPool3d": (
        {"self": VOLUMES, "kernelSize": [2, 3, 2], "stride": [2], "padding": [0], "countIncludePad": True},
        "out",
        F.avg_pool3d(VOLUMES, (2, 3, 2), 2),
    ),
    "MaxPool2dWithIndices": ({"self": IMAGES, **WINDOW, "ceilMode": True, "indices": MAX_2D[1]}, "out", MAX_2D[0]),
    "MaxPool3dWithArgmax": (
        {"self": VOLUMES, "kernelSize": [2], "stride": [2], "padding": [1], "dilation": [1], "indices": MAX_3D[1]},
        "out",
        MAX_3D[0],
    ),
    "MaxUnpool2d": (
        {"self": POOLED, "indices": PLACES, "outputSize": [9, 8]},
        "out",
        F.max_unpool2d(POOLED, PLACES, 2, output_size=[9, 8]),
    ),
    "MaxUnpool3d": (
        {"self": POOLED_3D, "indices": PLACES_3D, "outputSize": [5, 6, 4], "stride": [2, 2, 2], "padding": [0, 0, 0]},
        "outRef",
        F.max_unpool3d(POOLED_3D, PLACES_3D, 2, output_size=[5, 6, 4]),
    ),
    "GridSampler2D": ({"input": IMAGES, "grid": GRID}, "out", F.grid_sample(IMAGES, GRID, align_corners=False)),
    "GridSampler3D": ({"input": VOLUMES, "grid": GRID_3D}, "out", F.grid_sample(VOLUMES, GRID_3D, align_corners=False)),
    "AffineGrid": ({"theta": THETA, "size": [2, 3, 4, 5]}, "out", F.affine_grid(THETA, [2, 3, 4, 5], False)),
    "ConvDepthwise2d": (
        {"self": IMAGES, "weight": KERNELS, **WINDOW},
        "out",
        F.conv2d(IMAGES, KERNELS, None, (2, 1), (1, 0), (1, 2), groups=4),
    ),
    "ConvTbc": (
        {"self": STEPS, "weight": TBC, "bias": torch.ones(6), "pad": 1},
        "output",
        torch.conv_tbc(STEPS, TBC, torch.ones(6), 1),
    ),
    "Im2col": ({"self": IMAGES, **WINDOW}, "out", F.unfold(IMAGES, (3, 2), (1, 2), (1, 0), (2, 1))),
}  # fmt: skip
SPOILED = [  # operator, arguments that are others
    ("AdaptiveAvgPool2d", {"outputSize": [3]}),
    ("AdaptiveAvgPool3d", {"outputSize": [2, 3, 2]}),
    ("AvgPool2d", {"kernelSize": [0]}),
    ("AvgPool2d", {"paddings": [2]}),
    ("AvgPool2d", {"strides": [2**40]}),
    ("AvgPool3d", {"kernelSize": [9]}),
    ("MaxPool2dWithIndices", {"stride": [1, 1]}),
    ("MaxPool2dWithIndices", {"indices": torch.zeros(1, dtype=torch.int32)}),
    ("MaxPool3dWithArgmax", {"dilation": [0]}),
    ("MaxUnpool2d", {"indices": PLACES[:1]}),
    ("MaxUnpool3d", {"stride": [2]}),
    ("GridSampler2D", {"grid": GRID[:1]}),
    ("GridSampler2D", {"interpolationMode": 3}),
    ("GridSampler3D", {"paddingMode": -1}),
    ("AffineGrid", {"size": [2, 3, 4]}),
    ("ConvDepthwise2d", {"weight": KERNELS[:6]}),
    ("ConvDepthwise2d", {"kernelSize": [3, 3]}),
    ("ConvTbc", {"pad": -1}),
    ("ConvTbc", {"bias": torch.ones(5)}),
    ("Im2col", {"dilation": [4, 4]}),
]


def run(operator: str, spoiled: int | None) -> tuple[Answer, float]:
    """The answer, and how far the output is from PyTorch's. Tensors stay in the process that has the chip."""
    chip = Chip.get()
    arguments, output, expected = CALLS[operator]
    given = arguments if spoiled is None else {**arguments, **SPOILED[spoiled][1]}
    result = Tensor(torch.zeros_like(expected))
    answer = chip.call(operator, **given, **{output: result})
    difference = float((chip.download(result) - expected).abs().max()) if answer.ran else float("inf")
    chip.clear()
    return answer, difference


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("operator", CALLS)
def test_what_goes_together_runs(npu: Npu, operator: str) -> None:
    answer, difference = npu.call(run, operator, None)
    assert answer.ran, answer
    assert difference < 1e-5


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("index", range(len(SPOILED)), ids=[f"{name}-{'-'.join(what)}" for name, what in SPOILED])
def test_what_does_not_is_refused(npu: Npu, index: int) -> None:
    answer, _ = npu.call(run, SPOILED[index][0], index)
    assert (answer.code, answer.phase) == (REFUSED, 1), answer
