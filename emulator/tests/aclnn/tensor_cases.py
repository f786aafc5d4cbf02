"""Operators that move, reduce, index, sort or resample elements."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .harness import Case, Inputs

FLOATS = ("float32", "float16")
NUMBERS = (*FLOATS, "int32", "int64")
ANY = (*NUMBERS, "bool", "uint8")


def one(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.tensor(),)


def matrix(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.tensor([5, 6]),)


def distinct(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.distinct([5, 6]),)


def image(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.tensor([2, 3, 8, 10]),)


def rows(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.tensor([5, 6]), inputs.index([4], 5)


def rows_and_source(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.tensor([5, 6]), torch.randperm(5, generator=inputs.generator)[:3], inputs.tensor([3, 6])


def gathered(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.tensor([5, 6]), inputs.index([5, 3], 6)


def scattered(inputs: Inputs) -> tuple[Any, ...]:
    order = torch.rand(5, 6, generator=inputs.generator).argsort(1)[:, :3]  # no position twice
    return inputs.tensor([5, 6]), order, inputs.tensor([5, 3])


def masked(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.tensor([5, 6]), inputs.tensor([5, 6], dtype=torch.bool)


def put(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    x[index] = source
    return x


CASES = {
    "InplaceCopy": Case("InplaceCopy", lambda x: torch.empty_like(x).copy_(x), one, ANY),
    "Cast": Case("InplaceCopy", lambda x: x.to(torch.float32) + x.to(torch.int32), one, ("float16", "int64")),
    "Cat": Case("Cat", lambda x, y: torch.cat([x, y], 1), lambda i: (i.tensor([3, 4]), i.tensor([3, 2])), ANY),
    "Stack": Case("Stack", lambda x, y: torch.stack([x, y], 1), lambda i: (i.tensor([3, 4]), i.tensor([3, 4])), ANY),
    "Repeat": Case("Repeat", lambda x: x.repeat(2, 3), matrix, NUMBERS),
    "RepeatInterleaveInt": Case("RepeatInterleaveIntWithDim", lambda x: x.repeat_interleave(3, dim=1), matrix, NUMBERS),
    "RepeatInterleave": Case(
        "RepeatInterleaveWithDim",
        lambda x, r: x.repeat_interleave(r, dim=0),
        lambda i: (i.tensor([5, 6]), i.index([5], 4)),
        NUMBERS,
    ),
    "InplaceFillScalar": Case("InplaceFillScalar", lambda x: x.fill_(3), one, NUMBERS),
    "InplaceZero": Case("InplaceZero", lambda x: x.zero_(), one, ANY),
    "Arange": Case("Arange", lambda x: torch.arange(1, 20, 3, device=x.device), one),
    "Linspace": Case("Linspace", lambda x: torch.linspace(1, 20, 7, device=x.device), one),
    "Tril": Case("Tril", lambda x: x.tril(1), matrix, NUMBERS),
    "Triu": Case("Triu", lambda x: x.triu(-1), matrix, NUMBERS),
    "Flip": Case("Flip", lambda x: x.flip(0), matrix, NUMBERS),
    "Roll": Case("Roll", lambda x: x.roll(2, 1), matrix, NUMBERS),
    "ConstantPadNd": Case("ConstantPadNd", lambda x: F.pad(x, (1, 2), value=3), matrix, NUMBERS),
    "ReflectionPad2d": Case("ReflectionPad2d", lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), image),
    "ReplicationPad2d": Case("ReplicationPad2d", lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), image),
    "ReduceSum": Case("ReduceSum", lambda x: x.sum(-1), one, NUMBERS),
    "Mean": Case("Mean", lambda x: x.mean(-1, keepdim=True), one),
    "Prod": Case("ProdDim", lambda x: x.prod(0), matrix, ("float32", "int64")),
    "LogSumExp": Case("LogSumExp", lambda x: x.logsumexp(-1), one),
    "All": Case("All", lambda x: x.all(), one, ("bool",)),
    "Any": Case("Any", lambda x: x.any(-1), one, ("bool",)),
    "Max": Case("Max", lambda x: x.max(), one, NUMBERS),
    "Min": Case("Min", lambda x: x.min(), one, NUMBERS),
    "MaxDim": Case("MaxDim", lambda x: tuple(x.max(-1)), distinct, NUMBERS),
    "MinDim": Case("MinDim", lambda x: tuple(x.min(0, keepdim=True)), distinct, NUMBERS),
    "Amax": Case("Amax", lambda x: x.amax((0, 1)), matrix, NUMBERS),
    "Amin": Case("Amin", lambda x: x.amin(0), matrix, NUMBERS),
    "ArgMax": Case("ArgMax", lambda x: x.argmax(-1), distinct, NUMBERS),
    "ArgMin": Case("ArgMin", lambda x: x.argmin(), distinct),
    "Var": Case("VarCorrection", lambda x: x.var(-1), matrix),
    "Std": Case("Std", lambda x: x.std(0), matrix),
    "Cumsum": Case("Cumsum", lambda x: x.cumsum(-1), one, NUMBERS),
    "Cumprod": Case("Cumprod", lambda x: x.cumprod(0), matrix, ("float32",)),
    "Cummax": Case("Cummax", lambda x: tuple(x.cummax(0)), distinct),
    "Median": Case("MedianDim", lambda x: tuple(x.median(-1)), distinct, ("float32",)),
    "Kthvalue": Case("Kthvalue", lambda x: tuple(x.kthvalue(2, -1)), distinct, ("float32",)),
    "Index": Case("Index", lambda x, i: x[i], rows, ANY),
    "IndexColumns": Case("Index", lambda x, i: x[:, i], lambda i: (i.tensor([3, 5]), i.index([4], 5)), NUMBERS),
    "IndexInt32": Case("Index", lambda x, i: x[i], lambda i: (i.tensor([5, 6]), i.index([4], 5, torch.int32))),
    "IndexPutImpl": Case("IndexPutImpl", put, rows_and_source, NUMBERS),
    "IndexSelect": Case("IndexSelect", lambda x, i: x.index_select(0, i), rows, NUMBERS),
    "IndexAdd": Case("IndexAdd", lambda x, i, s: x.index_add(0, i, s, alpha=2), rows_and_source),
    "InplaceIndexCopy": Case("InplaceIndexCopy", lambda x, i, s: x.index_copy_(0, i, s), rows_and_source, NUMBERS),
    "IndexFill": Case("IndexFill", lambda x, i: x.index_fill(0, i, 2), rows),
    "Embedding": Case("Embedding", lambda x, i: F.embedding(i, x), rows),
    "Gather": Case("Gather", lambda x, i: x.gather(1, i), gathered, NUMBERS),
    "InplaceScatter": Case("InplaceScatter", lambda x, i, s: x.scatter_(1, i, s), scattered, NUMBERS),
    "ScatterAdd": Case("ScatterAdd", lambda x, i, s: x.scatter_add(1, i, s), scattered, NUMBERS),
    "InplaceMaskedFillScalar": Case("InplaceMaskedFillScalar", lambda x, m: x.masked_fill_(m, 2), masked, NUMBERS),
    "MaskedSelect": Case("MaskedSelect", torch.masked_select, masked, NUMBERS),
    "Nonzero": Case("Nonzero", torch.nonzero, lambda i: (i.tensor([5, 6], dtype=torch.bool),)),
    "Unique2": Case(
        "Unique2", lambda x: tuple(torch.unique(x, return_inverse=True, return_counts=True)), one, ("int32", "int64")
    ),
    "Sort": Case("Sort", lambda x: tuple(x.sort(-1, descending=True)), distinct, NUMBERS),
    "Topk": Case("Topk", lambda x: tuple(x.topk(3, -1)), distinct, FLOATS),
    "SearchSorted": Case(
        "SearchSorted",
        lambda s, x: torch.searchsorted(s, x, right=True),
        lambda i: (i.distinct([4, 9]).sort(-1)[0], i.tensor([4, 3], low=-20, high=20)),
        ("float32", "int32"),
    ),
    "Bincount": Case("Bincount", torch.bincount, lambda i: (i.index([20], 6),), ("int64",)),
    "AvgPool2d": Case("AvgPool2d", lambda x: F.avg_pool2d(x, 2), image),
    "AdaptiveAvgPool2d": Case("AdaptiveAvgPool2d", lambda x: F.adaptive_avg_pool2d(x, (3, 4)), image),
    "UpsampleBilinear2d": Case(
        "UpsampleBilinear2d",
        lambda x: F.interpolate(x, (12, 7), mode="bilinear"),
        image,
        FLOATS,
        {"atol": 5e-3, "rtol": 5e-3},
    ),
    "UpsampleBicubic2d": Case(
        "UpsampleBicubic2d",
        lambda x: F.interpolate(x, (12, 7), mode="bicubic"),
        image,
        FLOATS,
        {"atol": 1e-2, "rtol": 1e-2},
    ),
    "Addmv": Case(
        "Addmv",
        torch.addmv,
        lambda i: (i.tensor([5]), i.tensor([5, 6]), i.tensor([6])),
        FLOATS,
        {"atol": 1e-2, "rtol": 1e-2},
    ),
    "Addr": Case("Addr", torch.addr, lambda i: (i.tensor([5, 6]), i.tensor([5]), i.tensor([6])), FLOATS),
    "GroupNorm": Case(
        "GroupNorm",
        lambda x, w, b: F.group_norm(x, 3, w, b),
        lambda i: (i.tensor([2, 6, 5, 4]), i.tensor([6]), i.tensor([6])),
        FLOATS,
        {"atol": 1e-2, "rtol": 1e-2},
    ),
    "BatchNorm": Case(
        "BatchNorm",
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b),
        lambda i: (i.tensor([2, 6, 5, 4]), i.tensor([6]), i.positive([6]), i.tensor([6]), i.tensor([6])),
        ("float32",),
    ),
}
