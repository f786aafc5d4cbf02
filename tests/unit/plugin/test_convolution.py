"""Convolutions and windows as copies and a product are those of torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch.nn import functional

from ascend_plugin.ops.convolution import convolve, windows

SMALL = some.integers(1, 3)


@some.composite
def places(draw: some.DrawFn) -> dict[str, list[int]]:
    """Of one or two axes: length of what is given, of a window, its step, padding and dilation."""
    axes = draw(some.integers(1, 2))
    found = {name: [draw(SMALL) for _ in range(axes)] for name in ("size", "stride", "dilation")}
    found["padding"] = [draw(some.integers(0, 2)) for _ in range(axes)]
    reach = [(size - 1) * step + 1 for size, step in zip(found["size"], found["dilation"], strict=True)]
    found["lengths"] = [far + draw(some.integers(0, 7)) for far in reach]
    return found


@given(places(), SMALL, SMALL, some.integers(1, 4), some.booleans())
def test_a_convolution_is_that_of_torch(
    where: dict[str, list[int]], batch: int, channels: int, out: int, biased: bool
) -> None:
    values = torch.randn(batch, channels, *where["lengths"], dtype=torch.float64)
    weight = torch.randn(out, channels, *where["size"], dtype=torch.float64)
    bias = torch.randn(out, dtype=torch.float64) if biased else None
    places = where["stride"], where["padding"], where["dilation"]
    plain = functional.conv1d if len(where["size"]) == 1 else functional.conv2d
    result = convolve(values, weight, bias, *places)
    torch.testing.assert_close(result, plain(values, weight, bias, *places))
    assert result.is_contiguous()


@given(places().filter(lambda where: len(where["size"]) == 2), SMALL, SMALL, some.booleans())
def test_windows_are_those_of_torch(where: dict[str, list[int]], batch: int, channels: int, batched: bool) -> None:
    images = torch.randn(*([batch] if batched else []), channels, *where["lengths"])
    found = windows(images, where["size"], where["dilation"], where["padding"], where["stride"])
    assert torch.equal(
        found, functional.unfold(images, where["size"], where["dilation"], where["padding"], where["stride"])
    )


@pytest.mark.parametrize("axes", [1, 2])
def test_windows_side_by_side_are_a_view_of_the_values(axes: int) -> None:
    """A patch embedding copies its image once, not once for each place of a patch."""
    values, weight = torch.randn(1, 3, *[28] * axes), torch.randn(8, 3, *[14] * axes)
    plain = functional.conv1d if axes == 1 else functional.conv2d
    result = convolve(values, weight, None, [14] * axes, [0] * axes, [1] * axes)
    torch.testing.assert_close(result, plain(values, weight, stride=14), rtol=1e-4, atol=1e-4)
