"""Convolutions and windows of images as copies and one product, for chips on which PyTorch's own forms are unproven.

With weights in FRACTAL_NZ torch_npu must allow internal formats, and then it takes every convolution to the older
operator interface, which compiles at run time and is not known to have served anyone on Ascend 310P; that chip has no
aclnnIm2col either. Slices and products are what it runs all day.
Sources: op-plugin, ConvolutionKernelNpuOpApi.cpp (_calc_convolution); documents of aclnnIm2col.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch.nn.functional import pad


def windows(
    images: torch.Tensor, size: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> torch.Tensor:
    """What aten::im2col gives: [N, channels * height * width of a window, windows]; no N where images have none."""
    batch = images if images.dim() == 4 else images.unsqueeze(0)
    found, _ = columns(batch, size, stride, padding, dilation)
    return found if images.dim() == 4 else found.squeeze(0)


def convolve(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """values [N, channels, lengths ...], weight [out, channels, lengths of a window ...] -> [N, out, windows ...]."""
    found, counts = columns(values, weight.shape[2:], stride, padding, dilation)
    result = weight.flatten(1).matmul(found)
    if bias is not None:
        result += bias.unsqueeze(-1)
    return result.view(len(values), len(weight), *counts)


def columns(
    values: torch.Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Windows of [N, channels, lengths ...] as columns [N, channels * length of a window, windows]; and how many."""
    if any(padding):
        values = pad(values, [amount for both in reversed(padding) for amount in (both, both)])
    lengths = values.shape[2:]
    reach = [(window - 1) * step + 1 for window, step in zip(size, dilation, strict=True)]
    counts = tuple((length - far) // step + 1 for length, far, step in zip(lengths, reach, stride, strict=True))
    batch, channels = values.shape[:2]
    if list(size) == list(stride) and all(step == 1 for step in dilation):
        return _apart(values, size, counts).reshape(batch, channels * prod(size), prod(counts)), counts
    taps = []
    for places in product(*map(range, size)):
        tap = values
        for axis, (place, far, count, step) in enumerate(zip(places, dilation, counts, stride, strict=True)):
            tap = tap[(slice(None),) * (2 + axis) + (slice(place * far, place * far + (count - 1) * step + 1, step),)]
        taps.append(tap)
    return torch.stack(taps, dim=2).view(batch, channels * prod(size), prod(counts)), counts


def _apart(values: torch.Tensor, size: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
    """Windows that touch and do not overlap: a view [N, channels, window ..., windows ...]."""
    for axis, (window, count) in enumerate(zip(size, counts, strict=True)):
        values = values.narrow(2 + axis, 0, window * count)
    split = values.view(*values.shape[:2], *(part for pair in zip(counts, size, strict=True) for part in pair))
    axes = range(len(size))
    return split.permute(0, 1, *(3 + 2 * axis for axis in axes), *(2 + 2 * axis for axis in axes))
