"""Attention of vision and audio towers against its definition, and what it asks of the chip for many pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

HEADS = 2
PICTURES = [16, 64, 24, 4, 96]  # patches of each


def by_definition(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """[tokens, heads, size] in float64: every token of a sequence sees every other of it."""
    parts = []
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    for q, k, v in zip(*(x.double().split(lengths) for x in (query, key, value)), strict=True):
        scores = torch.einsum("shd,lhd->hsl", q, k) / q.shape[-1] ** 0.5
        parts.append(torch.einsum("hsl,lhd->shd", scores.softmax(-1), v))
    return torch.cat(parts)


def make_layer(size: int, kv_heads: int = HEADS) -> Any:
    """What the layer's forward pass reads of it; making a whole one takes an engine's configuration."""
    return SimpleNamespace(num_heads=HEADS, num_kv_heads=kv_heads, head_size=size, scale=size**-0.5)


def draw(size: int, dtype: torch.dtype, kv_heads: int = HEADS, lengths: list[int] = PICTURES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    heads = (HEADS, kv_heads, kv_heads)
    return [torch.randn(1, sum(lengths), count, size, generator=generator).to(dtype) for count in heads]


def largest_error(size: int, dtype: str, kv_heads: int, flat: bool, ends_on_host: bool) -> float:
    from ascend_plugin.ops.encoder_attention import AscendEncoderAttention

    tensors = draw(size, getattr(torch, dtype), kv_heads)
    ends = torch.tensor([0, *PICTURES]).cumsum(0).to(torch.int32)
    given = [x.flatten(2) if flat else x for x in tensors]
    found = AscendEncoderAttention.forward_oot(
        make_layer(size, kv_heads), *(x.npu() for x in given), cu_seqlens=ends if ends_on_host else ends.npu()
    )
    assert found.shape == given[0].shape and found.dtype == given[0].dtype
    expected = by_definition(*(x[0] for x in tensors), PICTURES)
    return float((found.cpu().double().view(expected.shape) - expected).abs().max())


def rows_without_ends(size: int) -> float:
    """A batch of pictures of one size, and of queries for fewer tokens than keys."""
    from ascend_plugin.ops.encoder_attention import AscendEncoderAttention

    query, key, value = (x.view(4, -1, HEADS, size) for x in draw(size, torch.float16, lengths=[32] * 4))
    worst = 0.0
    for tokens in (32, 5):
        asked = query[:, :tokens]
        found = AscendEncoderAttention.forward_oot(make_layer(size), asked.npu(), key.npu(), value.npu()).cpu()
        for row in range(4):
            scores = torch.einsum("shd,lhd->hsl", asked[row].double(), key[row].double()) / size**0.5
            expected = torch.einsum("hsl,lhd->shd", scores.softmax(-1), value[row].double())
            worst = max(worst, float((found[row].double() - expected).abs().max()))
    return worst


def traffic(pictures: int, layers: int) -> dict[str, int]:
    """What a tower's layers ask of the chip whose ends of pictures are on the device."""
    from ascend_emulator import counters

    from ascend_plugin.ops.encoder_attention import AscendEncoderAttention

    lengths = [4 * (1 + index % 7) for index in range(pictures)]
    tensors = [x.npu() for x in draw(72, torch.float16, lengths=lengths)]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).npu()
    torch.npu.synchronize()
    counters.reset_stats()
    for _ in range(layers):
        AscendEncoderAttention.forward_oot(make_layer(72), *tensors, cu_seqlens=ends)
    torch.npu.synchronize()
    stats = counters.stats()
    waits = stats["synchronizations"]
    return {
        "launches": stats["launches_total"],
        "read back": stats["copies"]["device_to_host"]["count"],
        "waits": waits["stream"] + waits["blocking_copy"] + waits["event"],
    }


@pytest.mark.parametrize("size", [32, 64, 72, 80, 88, 128])
@pytest.mark.chips("310P3", "910B3")
def test_agrees_with_the_definition(npu: Npu, size: int) -> None:
    assert npu.call(largest_error, size, "float16", HEADS, False, True) < 5e-3


@pytest.mark.chips("910B3")
def test_agrees_in_bfloat16(npu: Npu) -> None:
    assert npu.call(largest_error, 72, "bfloat16", HEADS, True, False) < 4e-2


@pytest.mark.chips("310P3")
def test_float32_towers_and_shared_keys(npu: Npu) -> None:
    assert npu.call(largest_error, 72, "float32", HEADS, True, False) < 5e-3
    assert npu.call(largest_error, 64, "float16", 1, True, False) < 5e-3


@pytest.mark.chips("310P3", "910B3")
def test_rows_are_sequences_where_no_ends_are_given(npu: Npu) -> None:
    assert npu.call(rows_without_ends, 64) < 5e-3


@pytest.mark.chips("310P3", "910B3")
def test_a_hundred_pictures_are_as_many_launches_as_one_and_one_wait(npu: Npu) -> None:
    if not npu.is_emulated:
        pytest.skip("only emulated chips count what they do")
    one, hundred, deeper = npu.call(traffic, 1, 1), npu.call(traffic, 100, 1), npu.call(traffic, 100, 4)
    assert one["launches"] == hundred["launches"] > 0
    assert deeper["launches"] == 4 * hundred["launches"]
    assert deeper["read back"] == hundred["read back"] == 1
    assert deeper["waits"] == hundred["waits"]


def test_the_comparison_tells_pictures_that_run_into_one_another() -> None:
    tensors = [x[0] for x in draw(64, torch.float16)]
    merged = [PICTURES[0] + PICTURES[1], *PICTURES[2:]]
    difference = by_definition(*tensors, PICTURES) - by_definition(*tensors, merged)
    assert float(difference.abs().max()) > 5e-2


def test_empty_sequences_are_left_out_and_lengths_are_kept() -> None:
    from ascend_plugin.ops import encoder_attention

    ends = torch.tensor([0, 4, 4, 9, 9, 9], dtype=torch.int64)
    lengths = encoder_attention.lengths_between(ends)
    assert lengths.tolist() == [4, 5] and lengths.dtype == torch.int32
    assert encoder_attention.lengths_between(ends) is lengths


@pytest.mark.parametrize(
    ("size", "padded"), [(32, 32), (40, 48), (64, 64), (72, 128), (88, 128), (128, 128), (160, 160)]
)
def test_head_sizes_are_those_that_the_operator_takes(size: int, padded: int) -> None:
    from ascend_plugin.ops import encoder_attention

    assert encoder_attention.padded_size(size) == padded
