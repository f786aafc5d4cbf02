"""What torch_npu launches through aclop (FRACTAL_NZ on 310P, copies between chips) against torch on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu
from torch.nn import functional

# Of matrices that the chip has in FRACTAL_NZ; which ones, by their names in of_fractals.
OF_FRACTALS: dict[str, tuple[Callable[..., torch.Tensor], tuple[str, ...]]] = {
    "cast": (lambda x: x.float(), ("matrix",)),
    "fill": (lambda x: x.clone().fill_(1.5), ("matrix",)),
    "fill with a tensor": (lambda x: x.clone().fill_(torch.full((), 1.5, dtype=x.dtype, device=x.device)), ("matrix",)),
    "zero": (lambda x: x.clone().zero_(), ("matrix",)),
    "every other row": (lambda x: x[1:40:2].clone(), ("matrix",)),
    "a block": (lambda x: x[3:20, 5:39:3].clone(), ("matrix",)),
    "product": (torch.matmul, ("matrix", "right")),
    "product of a transposed matrix": (lambda x, y: torch.matmul(x, y.t()), ("matrix", "matrix")),
    "products": (torch.bmm, ("batch", "other batch")),
    "products of transposed matrices": (lambda x, y: torch.bmm(x, y.transpose(1, 2)), ("batch", "batch")),
    "rows": (lambda x: functional.embedding(torch.tensor([[3, 0], [47, 3]]).to(x.device), x), ("matrix",)),
    "columns": (lambda x: x.index_select(1, torch.tensor([3, 0]).to(x.device)), ("matrix",)),
}
VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "every other row": lambda x: x[:, :, ::2],
    "one of a dimension": lambda x: x[:, 1],
    "a column": lambda x: x[..., 3],
    "a block": lambda x: x[1:, :2, 1:3, 2:5],
    "transposed": lambda x: x.permute(3, 0, 2, 1),
    "a transposed block": lambda x: x.transpose(1, 3)[:, 1:4],
    "repeated": lambda x: x[:, :1].expand(2, 5, 4, 6),
    "windows": lambda x: x.flatten().unfold(0, 5, 3),
}


def of_fractals(name: str) -> tuple[Any, Any]:
    """The result on the chip and on the CPU."""
    import torch_npu

    torch.manual_seed(0)
    sizes = {"matrix": (48, 40), "right": (40, 33), "batch": (3, 17, 40), "other batch": (3, 40, 20)}
    tensors = {each: torch.randint(-4, 5, size).half() for each, size in sizes.items()}
    function, names = OF_FRACTALS[name]
    operands = [tensors[each] for each in names]
    torch.npu.config.allow_internal_format = True
    on_chip = [torch_npu.npu_format_cast(operand.npu(), 29) for operand in operands]
    result = function(*on_chip)
    torch.npu.synchronize()
    return result.cpu().float().numpy(), function(*operands).float().numpy()


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("name", OF_FRACTALS)
def test_tensors_in_fractals(npu: Npu, name: str) -> None:
    actual, expected = npu.call(of_fractals, name)
    assert (actual == expected).all()


def between_chips(from_name: str, to_name: str) -> tuple[list[Any], list[Any]]:
    values = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.5, 100.0, 127.9, 255.5, -3.999]).to(getattr(torch, from_name))
    target = getattr(torch, to_name)
    if not target.is_floating_point and target not in (torch.bool, torch.int16, torch.int32, torch.int64):
        values = values.clamp(0, 100)  # beyond its limits torch's CPU wraps around
    source = values.to("npu:0")  # kept: chip 1 reads it, and nothing tells chip 0's allocator when it has
    return source.to("npu:1", target).cpu().tolist(), values.to(target).tolist()


def into_a_view_between_chips() -> tuple[Any, Any]:
    def fill(target: torch.Tensor, source: torch.Tensor) -> Any:
        target.zero_()
        target[:, 1::2].copy_(source.t())
        return target.cpu().numpy()

    source = torch.arange(12, dtype=torch.float32).view(3, 4)
    return (
        fill(torch.empty(4, 6, device="npu:1"), source.to("npu:0")),
        fill(torch.empty(4, 6), source),
    )


@pytest.mark.chips("310P3", "910B3")
def test_a_copy_into_a_view_between_chips(npu: Npu) -> None:
    actual, expected = npu.call(into_a_view_between_chips)
    assert (actual == expected).all()


def views_between_chips(name: str) -> tuple[Any, Any]:
    values = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    view = VIEWS[name]
    source = values.to("npu:0")
    return view(source).to("npu:1").cpu().numpy(), view(values).contiguous().numpy()


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("name", VIEWS)
def test_views_between_chips(npu: Npu, name: str) -> None:
    actual, expected = npu.call(views_between_chips, name)
    assert actual.shape == expected.shape
    assert (actual == expected).all()


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("to_name", ["float16", "float32", "int8", "uint8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("from_name", ["float16", "float32", "int32", "int64", "bool"])
def test_casts_between_chips(npu: Npu, from_name: str, to_name: str) -> None:
    actual, expected = npu.call(between_chips, from_name, to_name)
    assert actual == expected
