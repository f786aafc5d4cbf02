"""Operators of one element each: arithmetic, functions, comparisons, activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .harness import Case, Inputs

FLOATS = ("float32", "float16")
NUMBERS = (*FLOATS, "int32", "int64")
INTEGERS = ("int32", "int64", "int16", "uint8")


def one(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.tensor(),)


def positive(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.positive(),)


def fraction(inputs: Inputs) -> tuple[Any, ...]:
    return (inputs.tensor(low=-0.9, high=0.9),)


def pair(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.broadcastable()


def divisible(inputs: Inputs) -> tuple[Any, ...]:
    shape = inputs.shape()
    return inputs.tensor(shape, low=-20, high=20), inputs.positive(shape)


def same(inputs: Inputs) -> tuple[Any, ...]:
    shape = inputs.shape()
    return inputs.tensor(shape), inputs.tensor(shape)


def three(inputs: Inputs) -> tuple[Any, ...]:
    shape = inputs.shape()
    return inputs.tensor(shape), inputs.tensor(shape), inputs.positive(shape)


def selection(inputs: Inputs) -> tuple[Any, ...]:
    first, second = inputs.broadcastable()
    return inputs.tensor(list(first.shape), dtype=torch.bool), first, second


def shifts(inputs: Inputs) -> tuple[Any, ...]:
    shape = inputs.shape()
    return inputs.tensor(shape, low=0, high=100), inputs.tensor(shape, low=0, high=4)


UNARY = {
    "Abs": (torch.abs, one),
    "Acos": (torch.acos, fraction),
    "Acosh": (torch.acosh, positive),
    "Asin": (torch.asin, fraction),
    "Asinh": (torch.asinh, one),
    "Atan": (torch.atan, one),
    "Atanh": (torch.atanh, fraction),
    "Ceil": (torch.ceil, one),
    "Cos": (torch.cos, one),
    "Cosh": (torch.cosh, one),
    "Erf": (torch.erf, one),
    "Erfc": (torch.erfc, one),
    "Erfinv": (torch.erfinv, fraction),
    "Exp": (torch.exp, one),
    "Exp2": (torch.exp2, one),
    "Expm1": (torch.expm1, one),
    "Floor": (torch.floor, one),
    "Frac": (torch.frac, one),
    "Log": (torch.log, positive),
    "Log10": (torch.log10, positive),
    "Log1p": (torch.log1p, positive),
    "Log2": (torch.log2, positive),
    "Neg": (torch.neg, one),
    "Reciprocal": (torch.reciprocal, positive),
    "Round": (torch.round, one),
    "Rsqrt": (torch.rsqrt, positive),
    "Sigmoid": (torch.sigmoid, one),
    "Sign": (torch.sign, one),
    "Sin": (torch.sin, one),
    "Sinc": (torch.sinc, one),
    "Sinh": (torch.sinh, one),
    "Sqrt": (torch.sqrt, positive),
    "Tan": (torch.tan, fraction),
    "Tanh": (torch.tanh, one),
    "Trunc": (torch.trunc, one),
    "Relu": (F.relu, one),
    "Silu": (F.silu, one),
    "Mish": (F.mish, one),
    "Hardswish": (F.hardswish, one),
    "Hardsigmoid": (F.hardsigmoid, one),
    "IsFinite": (torch.isfinite, one),
    "IsPosInf": (torch.isposinf, one),
    "IsNegInf": (torch.isneginf, one),
    "Signbit": (torch.signbit, one),
    "NanToNum": (torch.nan_to_num, one),
}

CASES = (
    {name: Case(name, function, inputs) for name, (function, inputs) in UNARY.items()}
    | {
        "Add": Case("Add", lambda x, y: torch.add(x, y, alpha=2), pair, NUMBERS),
        "Adds": Case("Adds", lambda x: x + 2, one, NUMBERS),
        "InplaceAdd": Case("InplaceAdd", lambda x, y: x.add_(y), same, NUMBERS),
        "Sub": Case("Sub", lambda x, y: x - y, pair, NUMBERS),
        "Subs": Case("Subs", lambda x: x - 2, one, NUMBERS),
        "Rsubs": Case("Rsubs", lambda x: 3 - x, one, NUMBERS),
        "Mul": Case("Mul", lambda x, y: x * y, pair, NUMBERS),
        "Muls": Case("Muls", lambda x: x * 3, one, NUMBERS),
        "InplaceMuls": Case("InplaceMuls", lambda x: x.mul_(3), one, NUMBERS),
        "Div": Case("Div", lambda x, y: x / y, divisible, NUMBERS),
        "Divs": Case("Divs", lambda x: x / 4, one, NUMBERS),
        "DivMod": Case("DivMod", lambda x, y: torch.div(x, y, rounding_mode="trunc"), divisible, NUMBERS),
        "FloorDivide": Case("FloorDivide", lambda x, y: x // y, divisible, NUMBERS),
        "FloorDivides": Case("FloorDivides", lambda x: x // 3, one, NUMBERS),
        "RemainderTensorTensor": Case("RemainderTensorTensor", torch.remainder, divisible, ("int32", "int64")),
        "RemainderTensorScalar": Case("RemainderTensorScalar", lambda x: x % 3, one, ("int32", "int64")),
        "FmodScalar": Case("FmodScalar", lambda x: torch.fmod(x, 3), one, ("int32", "float32")),
        "PowTensorScalar": Case("PowTensorScalar", lambda x: x.pow(2), one, NUMBERS),
        "PowTensorTensor": Case("PowTensorTensor", torch.pow, lambda i: (i.positive([3, 4]), i.tensor([3, 4]))),
        "PowScalarTensor": Case("PowScalarTensor", lambda x: torch.pow(2.0, x), one),
        "Maximum": Case("Maximum", torch.maximum, pair, NUMBERS),
        "Minimum": Case("Minimum", torch.minimum, pair, NUMBERS),
        "Atan2": Case("Atan2", torch.atan2, same),
        "Addcmul": Case("Addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), three),
        "Addcdiv": Case("Addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), three),
        "Lerps": Case("Lerps", lambda x, y: torch.lerp(x, y, 0.3), same),
        "EqTensor": Case("EqTensor", torch.eq, pair, NUMBERS),
        "EqScalar": Case("EqScalar", lambda x: x == 1, one, NUMBERS),
        "NeTensor": Case("NeTensor", torch.ne, pair, NUMBERS),
        "NeScalar": Case("NeScalar", lambda x: x != 1, one, NUMBERS),
        "LtTensor": Case("LtTensor", torch.lt, pair, NUMBERS),
        "LtScalar": Case("LtScalar", lambda x: x < 1, one, NUMBERS),
        "LeTensor": Case("LeTensor", torch.le, pair, NUMBERS),
        "LeScalar": Case("LeScalar", lambda x: x <= 1, one, NUMBERS),
        "GtTensor": Case("GtTensor", torch.gt, pair, NUMBERS),
        "GtScalar": Case("GtScalar", lambda x: x > 1, one, NUMBERS),
        "GeTensor": Case("GeTensor", torch.ge, pair, NUMBERS),
        "GeScalar": Case("GeScalar", lambda x: x >= 1, one, NUMBERS),
        "LogicalAnd": Case("LogicalAnd", torch.logical_and, pair, ("bool", "int32")),
        "LogicalOr": Case("LogicalOr", torch.logical_or, pair, ("bool", "int32")),
        "LogicalNot": Case("LogicalNot", torch.logical_not, one, ("bool", "float32")),
        "BitwiseAndTensor": Case("BitwiseAndTensor", torch.bitwise_and, pair, ("bool", *INTEGERS)),
        "BitwiseOrTensor": Case("BitwiseOrTensor", torch.bitwise_or, pair, ("bool", *INTEGERS)),
        "BitwiseXorTensor": Case("BitwiseXorTensor", torch.bitwise_xor, pair, ("bool", *INTEGERS)),
        "BitwiseNot": Case("BitwiseNot", torch.bitwise_not, one, ("bool", *INTEGERS)),
        "RightShift": Case("RightShift", lambda x, y: x >> y, shifts, ("int32", "int64")),
        "LeftShift": Case("LeftShift", lambda x, y: x << y, shifts, ("int32", "int64")),
        "IsClose": Case("IsClose", torch.isclose, same),
        "SWhere": Case("SWhere", torch.where, selection, NUMBERS),
        "Clamp": Case("Clamp", lambda x: x.clamp(-1, 1), one, NUMBERS),
        "ClampMin": Case("Clamp", lambda x: x.clamp(min=0), one, NUMBERS),
        "ClampMax": Case("Clamp", lambda x: x.clamp(max=0), one, NUMBERS),
        "ClampTensor": Case("ClampTensor", lambda x, y: torch.clamp(x, y, y + 1), same),
        "ClampTensorMin": Case("ClampTensor", lambda x, y: torch.clamp(x, min=y), same),  # either bound may be left out
        "ClampTensorMax": Case("ClampTensor", lambda x, y: torch.clamp(x, max=y), same),
        "GeluTanh": Case("Gelu", lambda x: F.gelu(x, approximate="tanh"), one),
        "Elu": Case("Elu", F.elu, one),
        "Celu": Case("Celu", F.celu, one),
        "LeakyRelu": Case("LeakyRelu", F.leaky_relu, one),
        "Hardtanh": Case("Hardtanh", F.hardtanh, one),
        "Softplus": Case("Softplus", F.softplus, one),
        "Threshold": Case("Threshold", lambda x: F.threshold(x, 0.1, 2.0), one),
        "LogSigmoid": Case("LogSigmoidForward", F.logsigmoid, one),
        "Prelu": Case("Prelu", lambda x, w: F.prelu(x, w), lambda i: (i.tensor([2, 3, 4]), i.tensor([3]))),
        "Glu": Case("Glu", lambda x: F.glu(x, -1), lambda i: (i.tensor([3, 8]),)),
        "Softmax": Case("Softmax", lambda x: torch.softmax(x, -1), one),
        "LayerNorm": Case(
            "LayerNorm",
            lambda x, w, b: torch.native_layer_norm(x, list(w.shape), w, b, 1e-5)[0],
            lambda i: (i.tensor([3, 5, 24]), i.tensor([24]), i.tensor([24])),
        ),
        "LayerNormPlain": Case("LayerNorm", lambda x: F.layer_norm(x, x.shape[1:]), lambda i: (i.tensor([3, 5, 24]),)),
        "LogSoftmax": Case("LogSoftmax", lambda x: torch.log_softmax(x, -1), one),
    }
)
