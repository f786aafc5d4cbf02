"""Simple operators in exactly the types of the operator table: one case for each of its forms on this family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case
from ascend_facts import operators
from ascend_facts.chips import ChipSpec

Tensors = list[torch.Tensor]
ROWS, COLUMNS = 5, 33

# Each as a function of the form's inputs, on the device and in the reference alike.
SIMPLE: dict[str, Callable[[Tensors], torch.Tensor]] = {
    "Abs": lambda x: x[0].abs(),
    "Add": lambda x: x[0] + x[1],
    "Adds": lambda x: x[0] + 3,
    "Amax": lambda x: x[0].amax(-1),
    "Amin": lambda x: x[0].amin(-1),
    "BitwiseAndScalar": lambda x: x[0] & 15,
    "BitwiseAndTensor": lambda x: x[0] & x[1],
    "BitwiseNot": lambda x: ~x[0],
    "BitwiseOrTensor": lambda x: x[0] | x[1],
    "Cat": lambda x: torch.cat([x[0], x[0]]),
    "Clamp": lambda x: x[0].clamp(0, 2),
    "ClampMin": lambda x: torch.clamp_min(x[0], 0),
    "ConstantPadNd": lambda x: torch.nn.functional.pad(x[0], (0, 3)),
    "Cos": lambda x: x[0].cos(),
    "Cumsum": lambda x: x[0].cumsum(-1),
    "Div": lambda x: x[0] / (x[1].abs() + 1),
    "DivMods": lambda x: torch.div(x[0], 16, rounding_mode="floor"),
    "Divs": lambda x: x[0] / 3,
    "EqScalar": lambda x: x[0] == 1,
    "EqTensor": lambda x: x[0] == x[1],
    "Exp": lambda x: x[0].exp(),
    "GeScalar": lambda x: x[0] >= 1,
    "GeTensor": lambda x: x[0] >= x[1],
    "GtScalar": lambda x: x[0] > 1,
    "GtTensor": lambda x: x[0] > x[1],
    "InplaceAdd": lambda x: x[0].add_(x[1]),
    "InplaceBitwiseAndScalar": lambda x: x[0].bitwise_and_(15),
    "InplaceCopy": lambda x: x[0].copy_(x[1]),
    "InplaceDiv": lambda x: x[0].div_(x[1].abs() + 1),
    "InplaceFillScalar": lambda x: x[0].fill_(1),
    "InplaceMaskedFillScalar": lambda x: x[0].masked_fill_(x[1], 2),
    "InplaceMul": lambda x: x[0].mul_(x[1]),
    "InplaceMuls": lambda x: x[0].mul_(3),
    "InplaceOne": lambda x: torch.ones(x[0].shape, dtype=x[0].dtype, device=x[0].device),
    "InplaceTanh": lambda x: x[0].tanh_(),
    "InplaceZero": lambda x: x[0].zero_(),
    "LayerNorm": lambda x: torch.nn.functional.layer_norm(x[0], (COLUMNS,), x[1][0], x[2][0]),
    "LeScalar": lambda x: x[0] <= 1,
    "LeTensor": lambda x: x[0] <= x[1],
    "LogicalNot": lambda x: x[0].logical_not(),
    "LtScalar": lambda x: x[0] < 1,
    "LtTensor": lambda x: x[0] < x[1],
    "Maximum": lambda x: torch.maximum(x[0], x[1]),
    "Mean": lambda x: x[0].mean(-1),
    "Minimum": lambda x: torch.minimum(x[0], x[1]),
    "Mul": lambda x: x[0] * x[1],
    "Muls": lambda x: x[0] * 3,
    "NeScalar": lambda x: x[0] != 1,
    "NeTensor": lambda x: x[0] != x[1],
    "Neg": lambda x: -x[0],
    "PowScalarTensor": lambda x: torch.pow(2.0, x[0]),
    "PowTensorScalar": lambda x: x[0] ** 3,
    "Repeat": lambda x: x[0].repeat(2, 1),
    "RightShift": lambda x: x[0] >> (x[1] & 7),
    "Rsubs": lambda x: 3 - x[0],
    "SWhere": lambda x: torch.where(x[0], x[1], x[2]),
    "Sigmoid": lambda x: x[0].sigmoid(),
    "Silu": lambda x: torch.nn.functional.silu(x[0]),
    "Sin": lambda x: x[0].sin(),
    "Stack": lambda x: torch.stack([x[0], x[0]]),
    "Sub": lambda x: x[0] - x[1],
    "Subs": lambda x: x[0] - 3,
    "Tanh": lambda x: x[0].tanh(),
}
# Inputs that are places in the first one's rows.
BY_PLACE: dict[str, Callable[[Tensors], torch.Tensor]] = {
    "Embedding": lambda x: torch.nn.functional.embedding(x[1], x[0]),
    "Gather": lambda x: x[0].gather(1, x[1].view(-1, 1)),
    "Index": lambda x: x[0][x[1]],
    "IndexPutImpl": lambda x: x[0].index_put_((x[1],), x[2]),
    "IndexSelect": lambda x: x[0].index_select(0, x[1]),
}
MADE: dict[str, Callable[[torch.device, torch.dtype], torch.Tensor]] = {
    "Arange": lambda device, dtype: torch.arange(3, 40, device=device, dtype=dtype),
}


def forms(chip: ChipSpec) -> Iterator[Case]:
    family = chip.family if chip.family in operators.FAMILIES else "910b"
    for name, tensors in sorted(operators.launched_on(family)):
        short = name.removeprefix("aclnn")
        kinds = kinds_of(tensors)
        if short in SIMPLE and "int64" in kinds and short in ("Add", "Adds", "InplaceAdd"):
            yield Case(f"{name} {tensors}, one element", partial(simple, short, kinds, (1, 1)))
        elif short in SIMPLE:
            yield Case(f"{name} {tensors}", partial(simple, short, kinds, (ROWS, COLUMNS)))
        elif short in BY_PLACE:
            yield Case(f"{name} {tensors}", partial(by_place, short, kinds))
        elif short in MADE:
            yield Case(f"{name} {tensors}", partial(made, short, tensors.rpartition("=")[2]))


def kinds_of(tensors: str) -> list[str]:
    """The types of a form's inputs: those not named as an output."""
    pairs = (pair.split("=") for pair in tensors.split())
    return [kind for name, kind in pairs if "out" not in name.lower()]


def _value(bench: Bench, kind: str, shape: tuple[int, int]) -> torch.Tensor:
    dtype = getattr(torch, kind)
    if dtype.is_floating_point:
        return bench.randn(*shape, dtype=dtype)
    low = 0 if kind in ("bool", "uint8", "uint64") else -90
    values = bench.randint(low, 2 if kind == "bool" else 90, shape, torch.int64)
    return values.to(dtype)


def _judge(bench: Bench, found: torch.Tensor, exact: torch.Tensor) -> None:
    if found.is_floating_point():
        bench.close(found, exact)
    else:
        bench.same(found, exact.to(found.dtype))


def simple(short: str, kinds: list[str], shape: tuple[int, int], bench: Bench) -> None:
    """The result in the types of the form against the same in float64 (integers: in their own)."""
    values = [_value(bench, kind, shape) for kind in kinds] or [torch.zeros(shape)]
    wide = [value.double() if value.is_floating_point() else value.clone() for value in values]
    there = [bench.inside(values[0]), *(bench.put(value) for value in values[1:])]
    function = SIMPLE[short]
    if short == "InplaceCopy":
        wide[0] = wide[0].to(values[0].dtype)
    _judge(bench, function(there), function(wide))


def by_place(short: str, kinds: list[str], bench: Bench) -> None:
    table = _value(bench, kinds[0], (ROWS, COLUMNS))
    places = torch.randperm(ROWS, generator=torch.Generator().manual_seed(6)).to(getattr(torch, kinds[1]))
    values = [table, places, *(_value(bench, kind, (ROWS, COLUMNS)) for kind in kinds[2:])]
    there = [bench.inside(table), *(bench.put(value) for value in values[1:])]
    values[1] = places.long()
    bench.same(BY_PLACE[short](there), BY_PLACE[short](values))


def made(short: str, kind: str, bench: Bench) -> None:
    dtype = getattr(torch, kind)
    bench.same(MADE[short](bench.device, dtype), MADE[short](torch.device("cpu"), dtype))
