"""Buffers that upstream assigns to keep what lies behind, on a chip whose copies overwrite it."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu


def assigned(by_index: bool, shape: tuple[int, ...], dtype_name: str, count: int) -> tuple[list[int], list[int]]:
    """The buffer after `buffer[..., :count] = values` on the chip, and on the CPU."""
    import torch

    from ascend_plugin.ops.rows import WrittenByIndex

    dtype = getattr(torch, dtype_name)
    expected = torch.full(shape, 7, dtype=dtype)
    buffer = expected.to("npu")
    if by_index:
        buffer = WrittenByIndex.of(buffer)
    values = torch.arange(expected[..., :count].numel(), dtype=dtype)
    place = slice(None, count) if len(shape) == 1 else (slice(None), slice(None, count))
    expected[place] = values.view(expected[place].shape)
    # What lies behind the values is ours too, and differs from the buffer's: a ragged copy brings it along.
    source = torch.cat([values, torch.full((8,), 9, dtype=dtype)]).to("npu")
    buffer[place] = source[: len(values)].view(expected[place].shape)
    read = buffer[..., 1:].clone()
    assert type(read) is torch.Tensor
    return [*buffer[..., :1].flatten().tolist(), *read.flatten().tolist()], [
        *expected[..., :1].flatten().tolist(),
        *expected[..., 1:].flatten().tolist(),
    ]


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("count", [1, 255, 256])
@pytest.mark.parametrize(("shape", "dtype"), [((256,), "int32"), ((256,), "int64"), ((3, 256), "int64")])
def test_what_lies_behind_is_kept(npu: Npu, shape: tuple[int, ...], dtype: str, count: int) -> None:
    actual, expected = npu.call(assigned, True, shape, dtype, count)
    assert actual == expected


def other_assignments() -> tuple[list[int], list[int]]:
    import torch

    from ascend_plugin.ops.rows import WrittenByIndex

    buffers = torch.zeros(8, dtype=torch.int32), WrittenByIndex.of(torch.zeros(8, dtype=torch.int32).to("npu"))
    for buffer in buffers:
        buffer[:3] = 5
        buffer[torch.tensor([4, 6], device=buffer.device)] = torch.tensor([1, 2], dtype=torch.int32).to(buffer.device)
        buffer[:2] = torch.tensor([8, 9]).to(buffer.device)  # int64, converted
        buffer[:20] = torch.arange(8, dtype=torch.int32).to(buffer.device)
    return buffers[0].tolist(), buffers[1].tolist()


@pytest.mark.chips("310P3", "910B3")
def test_what_else_is_assigned(npu: Npu) -> None:
    on_cpu, on_chip = npu.call(other_assignments)
    assert on_chip == on_cpu
