"""Runs one expression on a chip and on the CPU; everything here executes in the process that has the chip."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


class Inputs:
    """Random tensors with random shapes and layouts, the same for the same seed."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.choice = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def shape(self, rank: int | None = None, low: int = 1, high: int = 7) -> list[int]:
        rank = self.choice.randint(1, 4) if rank is None else rank
        return [self.choice.randint(low, high) for _ in range(rank)]

    def tensor(
        self, shape: list[int] | None = None, dtype: torch.dtype | None = None, low: float = -3.0, high: float = 3.0
    ) -> torch.Tensor:
        """Values between low and high, in a layout drawn among contiguous, transposed and every other element."""
        shape = self.shape() if shape is None else shape
        dtype = self.dtype if dtype is None else dtype
        layout = self.choice.choice(["contiguous", "transposed", "strided"])
        stored = list(reversed(shape)) if layout == "transposed" else list(shape)
        if layout == "strided" and stored:
            stored[-1] *= 2
        values = torch.rand(stored, generator=self.generator) * (high - low) + low
        values = values > 0 if dtype == torch.bool else values.to(dtype)
        if layout == "transposed":
            return values.permute(*reversed(range(values.dim())))
        return values[..., ::2] if layout == "strided" and stored else values

    def positive(self, shape: list[int] | None = None) -> torch.Tensor:
        return self.tensor(shape, low=1.0, high=5.0)

    def distinct(self, shape: list[int]) -> torch.Tensor:
        """No two elements equal, so that an order or an index has one right answer."""
        count = torch.Size(shape).numel()
        return (torch.randperm(count, generator=self.generator) - count // 2).to(self.dtype).reshape(shape)

    def index(self, shape: list[int], bound: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.randint(bound, shape, generator=self.generator).to(dtype)

    def broadcastable(self) -> tuple[torch.Tensor, torch.Tensor]:
        shape = self.shape()
        other = [1 if self.choice.random() < 0.3 else size for size in shape][self.choice.randrange(len(shape)) :]
        return self.tensor(shape), self.tensor(other)


@dataclass(frozen=True)
class Case:
    """`operator` must be launched, and `function` must give on the chip what it gives on the CPU."""

    operator: str
    function: Callable[..., Any]
    inputs: Callable[[Inputs], tuple[Any, ...]]
    dtypes: tuple[str, ...] = ("float32", "float16")
    tolerance: dict[str, float] = field(default_factory=dict)  # of assert_close, where its own is too strict


def _to_chip(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        base = value._base if value._base is not None else value
        return base.npu().as_strided(value.size(), value.stride(), value.storage_offset())  # keeps the layout
    if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        return type(value)(_to_chip(item) for item in value)
    return value


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, list | tuple):
        return [_to_cpu(item) for item in value]
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value


def compare(module: str, name: str, dtype: str, seeds: int = 4) -> None:
    """Raises AssertionError where the chip and the CPU differ, or where the case's operator was not launched."""
    import importlib

    import torch_npu
    from ascend_emulator import counters

    torch_npu.npu.set_compile_mode(jit_compile=False)  # a 310P would otherwise compile each operator for its shape
    case: Case = importlib.import_module(module).CASES[name]
    for seed in range(seeds):
        arguments = case.inputs(Inputs(seed, getattr(torch, dtype)))
        on_chip = [_to_chip(argument) for argument in arguments]
        counters.reset_stats()
        result = _to_cpu(case.function(*on_chip))
        launches = counters.stats()["launches"]
        assert f"aclnn{case.operator}" in launches, f"launched {sorted(launches)}"
        expected = _to_cpu(case.function(*[_copy(argument) for argument in arguments]))
        tolerance = {"rtol": 2e-3, "atol": 2e-3} if dtype == "float16" else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(result, expected, equal_nan=True, **(tolerance | case.tolerance))
