"""Matrices of quantized checkpoints whose activations stay as they are: fp8, AWQ and GPTQ.

Each function takes a weight [out, in] and gives what a checkpoint stores for it, by suffix, and the numbers, fp32, that
this stands for. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

Tensors = dict[str, torch.Tensor]

FP8_LARGEST = 448.0  # of e4m3
FP8_BLOCK = 128
FOUR_BIT_GROUP = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that each nibble of an AWQ word holds


def fp8_matrix(weight: torch.Tensor, by_block: bool) -> tuple[Tensors, torch.Tensor]:
    """fp8 e4m3 of [out, in], with a scale for each block of 128 x 128 (Qwen3-FP8) or one, and the numbers it means."""
    weight = weight.float()
    rows, columns = weight.shape
    if by_block:
        blocks = weight.abs().unfold(0, FP8_BLOCK, FP8_BLOCK).unfold(1, FP8_BLOCK, FP8_BLOCK)
        scale = blocks.amax(dim=(2, 3)) / FP8_LARGEST
        whole = scale.repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)[:rows, :columns]
    else:
        scale = whole = weight.abs().amax() / FP8_LARGEST
    rounded = (weight / whole).to(torch.float8_e4m3fn)
    return {"weight": rounded, "weight_scale_inv" if by_block else "weight_scale": scale}, rounded.float() * whole


def packed_words(values: torch.Tensor, order: Iterable[int] = range(8)) -> torch.Tensor:
    """Four-bit values [.., 8 n] in int32 words [.., n]: nibble i of a word holds the value order[i] of its eight."""
    eights = values.to(torch.int32).unflatten(-1, (-1, 8))
    words = torch.zeros(eights.shape[:-1], dtype=torch.int32)
    for nibble, index in enumerate(order):
        words |= eights[..., index] << (4 * nibble)
    return words


def _by_group(weight: torch.Tensor) -> torch.Tensor:
    """[out, in] as [groups, out, group size]."""
    groups: torch.Tensor = weight.float().unflatten(1, (-1, FOUR_BIT_GROUP))
    return groups.transpose(0, 1)


def _from_groups(groups: torch.Tensor) -> torch.Tensor:
    return groups.transpose(0, 1).flatten(1)


def awq_matrix(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """AWQ: unsigned four bits with a zero point for each group of 128 inputs and each output."""
    groups = _by_group(weight)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    values = ((groups / scale.unsqueeze(2)).round() + zero.unsqueeze(2)).clamp(0, 15)
    tensors = {
        "qweight": packed_words(_from_groups(values).t(), AWQ_ORDER),
        "qzeros": packed_words(zero, AWQ_ORDER),
        "scales": scale.half(),
    }
    return tensors, _from_groups((values - zero.unsqueeze(2)) * scale.unsqueeze(2))


def gptq_matrix(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """GPTQ, symmetric: unsigned four bits around 8, packed along the inputs."""
    groups = _by_group(weight)
    scale = (groups.abs().amax(dim=2) / 7).half().float()
    values = ((groups / scale.unsqueeze(2)).round() + 8).clamp(0, 15)
    tensors = {
        "qweight": packed_words(_from_groups(values)).t(),
        "qzeros": packed_words(torch.full(scale.shape, 7)),  # one less than the zero point
        "scales": scale.half(),
        "g_idx": (torch.arange(weight.shape[1]) // FOUR_BIT_GROUP).to(torch.int32),
    }
    return tensors, _from_groups((values - 8) * scale.unsqueeze(2))
