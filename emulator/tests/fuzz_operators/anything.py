"""Calls of any operator of the table with arguments drawn from a seed: in valid memory, or descriptors of garbage."""

from __future__ import annotations

import random
from typing import Any

import torch
from aclnn.direct import ACL_TYPES, FRACTAL_NZ, Tensor, signatures

DTYPES = tuple(ACL_TYPES)
SIZES = (0, 1, 1, 2, 2, 3, 4, 8, 16, 16, 32, 33, 64, 128)
GARBAGE = (-1, -7, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
RARE_TYPES = (5, 13, 14, 15, 18, 26, 28, 31, 34, 35, 36, 40, 41, 99, -1, 16, 17, 29, 30, 33, 7, 8, 10)
RARE_FORMATS = (0, 1, 3, 4, 27, 30, 32, 33, 50, 51, 999, -1)
MOST_ELEMENTS = 1 << 16
SLOW = {"Multinomial", "MultinomialTensor"}  # as many samples as their argument says


class Anything:
    """Arguments for one call. Shapes repeat within a call, so that many of them fit one another."""

    def __init__(self, seed: int, garbage: bool) -> None:
        self.random = random.Random(seed)
        self.garbage = garbage
        self.shapes: list[list[int]] = []
        self.dtype = self.random.choice(DTYPES)

    def call(self) -> tuple[str, dict[str, Any]]:
        known = [name for name, each in signatures().items() if each.parameters is not None and name not in SLOW]
        name = self.random.choice(known)
        given = {each.name: self.argument(each.type, each.optional) for each in signatures()[name].parameters}
        return name, given

    def size(self) -> int:
        if self.garbage and self.random.random() < 0.06:
            return self.random.choice(GARBAGE)
        return self.random.choice(SIZES)

    def shape(self) -> list[int]:
        if self.shapes and self.random.random() < 0.6:
            shape = list(self.random.choice(self.shapes))
            if shape and self.random.random() < 0.25:
                shape[self.random.randrange(len(shape))] = self.size()
            if shape and self.random.random() < 0.12:
                shape = shape[1:] if self.random.random() < 0.5 else shape[:-1]
        else:
            shape = [self.size() for _ in range(self.random.choice([0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5]))]
        self.shapes.append(shape)
        return shape

    def tensor(self, optional: bool = False) -> Tensor | None:
        if self.random.random() < (0.35 if optional else 0.015):
            return None
        shape = self.shape()
        stored = [min(max(size, 0), 512) for size in shape]
        while torch.Size(stored).numel() > MOST_ELEMENTS:
            stored[stored.index(max(stored))] = 1
        dtype = self.dtype if self.random.random() < 0.7 else self.random.choice(DTYPES)
        value = torch.full(stored, self.random.choice([0, 1, 2, 3]), dtype=dtype)
        if self.random.random() < 0.15 and len(stored) >= 2:
            value = value.transpose(-1, -2)
        tensor = Tensor(value, at_page_end=True)
        if self.random.random() < 0.03:
            tensor.dtype = self.random.choice(RARE_TYPES)
        if self.random.random() < 0.02:
            tensor.format = self.random.choice(RARE_FORMATS)
        if self.random.random() < 0.06 and len(stored) >= 2 and torch.Size(stored[:-2]).numel() <= 64:
            tensor.format = FRACTAL_NZ
            columns, rows = -(-max(1, stored[-1]) // 16), -(-max(1, stored[-2]) // 16)
            tensor.value = torch.zeros(torch.Size(stored[:-2]).numel() * columns * rows * 256, dtype=dtype)
            tensor.sizes, tensor.strides, tensor.offset = stored, _dense(stored), 0
            tensor.storage_sizes = [*stored[:-2], columns, rows, 16, 16][:8]
        if self.garbage:
            self.spoil(tensor, shape)
        return tensor

    def spoil(self, tensor: Tensor, shape: list[int]) -> None:
        draw = self.random.random
        if draw() < 0.3:
            tensor.sizes, tensor.strides = shape, _dense(shape)
        if draw() < 0.08:
            tensor.strides = [self.random.choice([-1, 0, 1, 2**40, 2**62, -(2**40)]) for _ in shape]
        if draw() < 0.05:
            tensor.offset = self.random.choice([-1, 1, 2**40, -(2**40), 2**62])
        if draw() < 0.05:
            tensor.storage_sizes = [self.size() for _ in range(self.random.choice([0, 1, 2, 4, 6]))]

    def integer(self) -> int:
        if self.random.random() < 0.9:
            return self.random.choice([0, 0, 1, 1, 2, 3, -1, -2, 4, 8, 16, 32, 128])
        return self.random.choice([2**63 - 1, -(2**63), 2**31, -(2**31), 1000, 2**40])

    def argument(self, kind: str, optional: bool) -> Any:
        draw = self.random
        if kind in ("Tensor", "DynamicTensor"):
            return self.tensor(optional)
        if kind not in ("bool", "int64", "int32", "int8", "uint64", "double", "float", "dtype") and draw.random() < 0.1:
            return None
        count = draw.choice([0, 1, 1, 2, 3])
        match kind:
            case "TensorList":
                return None if optional and draw.random() < 0.3 else [self.tensor() for _ in range(count)]
            case "Scalar":
                return draw.choice([0, 1, 2, -1, 0.5, 2.0, float("nan"), 2**62])
            case "IntArray":
                return [self.integer() for _ in range(count)]
            case "BoolArray":
                return [draw.random() < 0.5 for _ in range(count)]
            case "FloatArray":
                return [draw.choice([0.0, 1.0, 0.5]) for _ in range(count)]
            case "string":
                return draw.choice(["", "BSH", "TND", "half", "Norm", "PA_NZ", "rint", "none", "sum", "x" * 300])
            case "double" | "float":
                return draw.choice([0.0, 1.0, 0.5, -1.0, 1e-6, float("inf"), float("nan")])
            case "bool":
                return draw.random() < 0.5
            case "dtype":
                return draw.choice([*ACL_TYPES.values(), 99, -1])
            case "int8":
                return draw.choice([0, 1, 2, 3, 4, -1, 127])
            case "int32":
                return draw.choice([0, 1, 2, 3, -1, 1000])
            case "uint64":
                return abs(self.integer())
            case "int64":
                return self.integer()
        return None  # lists of scalars


def _dense(sizes: list[int]) -> list[int]:
    strides, stride = [], 1
    for size in reversed(sizes):
        strides.insert(0, stride)
        stride *= size
    return strides
