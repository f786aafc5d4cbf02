"""Operators that work element by element, and reductions: against the same operator in float64 (integers exactly)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_facts.chips import ChipSpec

Function = Callable[..., torch.Tensor]

INTEGER_LENGTHS = (1, 2, 3, 7, 8, 16, 31, 33, 100, 112, 2048)
AI_CPU_FACTOR = 5  # a form that takes this many times its neighbor's time is not on the same cores


def integers(chip: ChipSpec) -> Iterator[Case]:
    yield Case("add int64, 64 elements", partial(arithmetic, torch.add, torch.int64, (32, 64)))
    for length in (112, 9, 33):
        case = partial(arithmetic, torch.add, torch.int64, (length,))
        yield Case(f"add int64, {length} elements", case, "int64_add")
    two: dict[str, Function] = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "maximum": torch.maximum,
        "floor_divide": torch.floor_divide,
        "remainder": torch.remainder,
    }
    for name, function in two.items():
        for dtype in (torch.int32, torch.int64):
            if (name, dtype) == ("add", torch.int64):
                continue
            kind = str(dtype).removeprefix("torch.")
            yield Case(f"{name} {kind}", partial(arithmetic, function, dtype, INTEGER_LENGTHS))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        for dtype in (torch.int32, torch.int64, torch.float32):
            kind = str(dtype).removeprefix("torch.")
            yield Case(f"{name} {kind}", partial(arithmetic, getattr(torch, name), dtype, (1, 33, 112)))
    yield Case("clamp int32", clamp)
    yield Case("where, masked_fill int32", select)
    yield Case("bitwise_and int32, logical_not", bits)
    yield Case("sum of bool, a vocabulary", sum_of_bools)
    yield Case("sum int64", partial(sums, torch.int64))
    yield Case("sum int32: time", sum_int32, "int32_sum")
    yield Case("cumsum int32, int64", cumulated)


def arithmetic(function: Function, dtype: torch.dtype, lengths: tuple[int, ...], bench: Bench) -> None:
    for length in lengths:
        a, b = (bench.randint(low, 900, (length,), torch.int64).to(dtype) for low in (-900, 1))
        expected = function(a, b)
        found = bench.inside(torch.zeros_like(expected))
        there = (bench.put(a), bench.put(b))
        if function in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge):
            found = bench.launched(lambda there=there: function(*there))
        else:
            function(*there, out=found)
        bench.same(found, expected)


def clamp(bench: Bench) -> None:
    for length in (1, 9, 112):
        values = bench.randint(-900, 900, (length,))
        there = bench.put(values)
        bench.same(bench.launched(lambda there=there: there.clamp(0, 100)), values.clamp(0, 100))


def select(bench: Bench) -> None:
    for length in (1, 9, 112):
        values, mask = bench.randint(-900, 900, (length,)), bench.randint(0, 2, (length,)).bool()
        expected = torch.where(mask, values, 7)
        there = bench.put(mask), bench.put(values)
        bench.same(bench.launched(lambda there=there: torch.where(there[0], there[1], 7)), expected)
        target = bench.inside(values)
        target.masked_fill_(there[0], 5)
        bench.same(target, values.masked_fill(mask, 5))


def bits(bench: Bench) -> None:
    words = bench.randint(-(2**31), 2**31 - 1, (4, 100))
    values = torch.tensor([1 << bit for bit in range(31)] + [-(2**31)], dtype=torch.int32)
    there = bench.put(words), bench.put(values)
    expected = words.unsqueeze(-1) & values
    bench.same(bench.launched(lambda: torch.bitwise_and(there[0].unsqueeze(-1), there[1])), expected)
    bench.same(~bench.put(words > 0), words <= 0)


def sum_of_bools(bench: Bench) -> None:
    mask = bench.randint(0, 2, (3, 151936)).bool()
    bench.same(bench.put(mask).sum(-1), mask.sum(-1))
    bench.same(bench.put(mask).to(torch.float32).sum(-1), mask.float().sum(-1))


def sums(dtype: torch.dtype, bench: Bench) -> None:
    values = bench.randint(-900, 900, (5, 1000), torch.int64).to(dtype)
    bench.same(bench.put(values).sum(-1), values.sum(-1))


def sum_int32(bench: Bench) -> None:
    """In int32 an AI CPU may do it, many times slower than the cores do the same in float32."""
    values = bench.put(bench.randint(-9, 9, (4, 10_000)))
    bench.same(values.sum(-1, dtype=torch.int32), values.cpu().sum(-1, dtype=torch.int32))
    compare_times(bench, lambda: values.sum(-1, dtype=torch.int32), _float_sum(values))


def _float_sum(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    wide = values.float()
    return lambda: wide.sum(-1)


def compare_times(bench: Bench, launch: Callable[[], object], neighbor: Callable[[], object]) -> None:
    """Raises WrongResult where a form takes many times as long as one that moves as much, each time it is tried."""
    for _ in range(3):  # what is slow once may have waited for the host
        usual, found = bench.timed(neighbor), bench.timed(launch)
        bench.facts["times_its_neighbor"] = round(found / usual, 2) if usual > 0 else None
        if not bench.times_count or usual <= 0 or found <= AI_CPU_FACTOR * usual:
            return
    raise WrongResult(f"right, but {found:.0f} us where its neighbor takes {usual:.0f}: not on the AI cores")


def cumulated(bench: Bench) -> None:
    for dtype in (torch.int32, torch.int64):
        values = bench.randint(0, 90, (5, 100), torch.int64).to(dtype)
        bench.same(bench.put(values).cumsum(-1).to(torch.int64), values.cumsum(-1))


# ---------------------------------------------------------------- floating point

ONE: dict[str, Function] = {
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "softplus": torch.nn.functional.softplus,
    "abs": torch.abs,
    "neg": torch.neg,
    "square": torch.square,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.5),
}
# CANN's Gelu is the form with tanh, whatever torch asks for.
COARSER = {"gelu": 5e-3}
TWO: dict[str, Function] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda a, b: torch.div(a, b.abs() + 0.5),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
ROWS: dict[str, Function] = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(-1),
    "cumsum": lambda x: x.cumsum(-1),
    "tril": torch.tril,
    "vector norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
}
SIZES = ((1,), (9,), (3, 113), (2, 4, 64))


def elements(chip: ChipSpec) -> Iterator[Case]:
    for dtype in _floats(chip):
        kind = str(dtype).removeprefix("torch.")
        for name, function in ONE.items():
            yield Case(f"{name} {kind}", partial(of_one, function, dtype, COARSER.get(name)))
        for name, function in TWO.items():
            yield Case(f"{name} {kind}", partial(of_two, function, dtype))
        for name, function in ROWS.items():
            yield Case(f"{name} {kind}", partial(of_rows, function, dtype))
        yield Case(f"cat, contiguous, repeat_interleave {kind}", partial(rearranged, dtype))
        yield Case(f"overflow of {kind}", partial(overflow, dtype), "saturation")
    yield Case("-inf by masked_fill, through exp and softmax", infinities)


def _floats(chip: ChipSpec) -> list[torch.dtype]:
    return [getattr(torch, name) for name in sorted({"float16", "float32", chip.preferred_dtype})]


def of_one(function: Function, dtype: torch.dtype, bound: float | None, bench: Bench) -> None:
    for shape in SIZES:
        values = bench.randn(*shape, dtype=dtype)
        there = bench.put(values)
        found = bench.launched(lambda there=there: function(there))
        bench.close(found, function(values.double()), bound)


def of_two(function: Function, dtype: torch.dtype, bench: Bench) -> None:
    for shape in SIZES:
        a, b = bench.randn(*shape, dtype=dtype), bench.randn(*shape, dtype=dtype)
        there = bench.put(a), bench.put(b)
        bench.close(bench.launched(lambda there=there: function(*there)), function(a.double(), b.double()))
        if len(shape) > 1:  # one row for all
            bench.close(function(there[0], there[1][:1]), function(a.double(), b[:1].double()))


def of_rows(function: Function, dtype: torch.dtype, bench: Bench) -> None:
    for shape in ((1, 33), (3, 113), (5, 4096)):
        values = bench.randn(*shape, dtype=dtype)
        there = bench.put(values)
        bench.close(bench.launched(lambda there=there: function(there)), function(values.double()))


def rearranged(dtype: torch.dtype, bench: Bench) -> None:
    a, b = bench.randn(5, 33, dtype=dtype), bench.randn(5, 7, dtype=dtype)
    there = bench.put(a), bench.put(b)
    bench.same(bench.launched(lambda: torch.cat(there, dim=1)), torch.cat((a, b), dim=1))
    bench.same(bench.launched(lambda: there[0][:, 3:20].contiguous()), a[:, 3:20])
    bench.same(there[0].repeat_interleave(3, dim=0), a.repeat_interleave(3, dim=0))
    bench.same(there[0].t().contiguous(), a.t())


def overflow(dtype: torch.dtype, bench: Bench) -> None:
    """Infinities of arithmetic, where IEEE has them; a chip that saturates has none."""
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest, -largest, 1.0], dtype=dtype)
    found = (bench.put(values) * bench.put(values).abs()).cpu()
    bench.facts["saturates"] = not bool(found[:2].isinf().any())
    if bench.facts["saturates"]:
        raise WrongResult(f"{largest:g} squared is {found[0].item():g}, no infinity: the chip saturates")
    bench.same(found, values * values.abs())


def infinities(bench: Bench) -> None:
    values, hidden = bench.randn(4, 100, dtype=torch.float32), bench.randint(0, 2, (4, 100)).bool()
    hidden[:, 0] = False
    masked = values.masked_fill(hidden, float("-inf"))
    there = bench.put(values).masked_fill(bench.put(hidden), float("-inf"))
    bench.close(there.exp(), masked.double().exp())
    bench.close(there.softmax(-1), masked.double().softmax(-1))


# ---------------------------------------------------------------- random numbers, last: a chip may hang on them


def random_numbers(chip: ChipSpec) -> Iterator[Case]:
    for name in ("normal_", "uniform_", "exponential_"):
        yield Case(name, partial(drawn, name, torch.float32), "device_random")
    for name in ("normal_", "uniform_"):
        half = getattr(torch, chip.preferred_dtype)
        yield Case(f"{name} {chip.preferred_dtype}", partial(drawn, name, half), "device_random")


def drawn(name: str, dtype: torch.dtype, bench: Bench) -> None:
    values = bench.inside(torch.zeros(4096, dtype=dtype))
    getattr(values, name)()
    torch.npu.synchronize()
    found = values.cpu().float()
    mean = {"normal_": 0.0, "uniform_": 0.5, "exponential_": 1.0}[name]
    if not (bool((found >= 0).all()) or name == "normal_") or abs(float(found.mean()) - mean) > 0.1:
        raise WrongResult(f"4,096 numbers with a mean of {float(found.mean()):.3f} where {mean} is expected")
