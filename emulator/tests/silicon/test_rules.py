"""Each rule of silicon shows on the chip that has it, leaves its neighbours alone, and can be switched off.

`strict` enforces every rule, `lenient` none: what a rule does is the difference between the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from ascend_emulator.launcher import emulate
from ascend_emulator.pytest_plugin import Npu
from ascend_emulator.worker import Worker

from . import rules_on_chip as chip

FAULT, TIME_OUT, REFUSED, TILING, INNER = 507015, 507014, 161002, 561002, 561103


class Machines:
    """One process a chip, set of rules and clock; started when first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, str, str, str], Npu] = {}

    def __call__(self, name: str, rules: str, clock: str = "functional", purpose: str = "") -> Npu:
        key = (name, rules, clock, purpose)
        if key not in self._started:
            machine = self._stack.enter_context(emulate(chip=name, rules=rules, clock=clock))
            worker = Worker(machine.environment)
            self._stack.callback(worker.close)
            self._started[key] = Npu(worker, is_emulated=True)
        return self._started[key]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(stack)


@pytest.fixture
def strict(machines: Machines) -> Npu:
    return machines("310P3", "all")


@pytest.fixture
def lenient(machines: Machines) -> Npu:
    return machines("310P3", "none")


@pytest.fixture
def other_chip(machines: Machines) -> Npu:
    """A 910B3 with all of its rules."""
    return machines("910B3", "all")


@pytest.mark.parametrize(("count", "dtype"), [(9, torch.int32), (112 + 1, torch.int64), (17, torch.float16)])
@pytest.mark.parametrize("to_offset", [0, 3])
def test_ragged_copy_overwrites_what_lies_behind(
    strict: Npu, lenient: Npu, other_chip: Npu, count: int, dtype: torch.dtype, to_offset: int
) -> None:
    buffer, exact = strict.call(chip.copy_to_front, count, dtype, to_offset)
    per_block = 32 // dtype.itemsize
    end = to_offset + count
    spoiled = end + (-count) % per_block
    assert buffer[:end] == exact[:end], "what was to be copied"
    assert buffer[end:spoiled] != exact[end:spoiled], "the rest of the block"
    assert buffer[end:spoiled] == list(range(count + 1, count + 1 + spoiled - end)), "what lies behind the source"
    assert buffer[spoiled:] == exact[spoiled:], "behind the block"
    for kind in (lenient, other_chip):
        assert kind.call(chip.copy_to_front, count, dtype, to_offset) == (exact, exact)


@pytest.mark.parametrize("count", [8, 16, 3, 7])
def test_even_and_short_copies_are_exact(strict: Npu, count: int) -> None:
    buffer, exact = strict.call(chip.copy_to_front, count, torch.int32)
    assert buffer == exact


def test_copies_that_cast_are_exact(strict: Npu) -> None:
    buffer, exact = strict.call(chip.copy_casting, 9)
    assert buffer == exact


@pytest.mark.parametrize("count", [112, 9, 33])
def test_int64_add_faults(strict: Npu, lenient: Npu, other_chip: Npu, count: int) -> None:
    answer = strict.call(chip.add, count, torch.int64)
    assert (answer.code, answer.phase) == (FAULT, 2), answer
    assert "int64_add" in answer.message
    for kind in (lenient, other_chip):
        assert kind.call(chip.add, count, torch.int64).ran


@pytest.mark.parametrize(
    ("count", "dtype"), [(112, torch.int32), (64, torch.int64), (1, torch.int64), (9, torch.float32)]
)
def test_other_additions_run(strict: Npu, count: int, dtype: torch.dtype) -> None:
    assert strict.call(chip.add, count, dtype).ran
    assert strict.call(chip.subtract, 112).ran


def test_nz_float32_result_is_refused(strict: Npu, lenient: Npu) -> None:
    answer = strict.call(chip.nz_product, torch.float32)
    assert (answer.code, answer.phase) == (INNER, 1), answer
    assert "nz_float32_result" in answer.message
    assert strict.call(chip.nz_product, torch.float16).ran
    assert lenient.call(chip.nz_product, torch.float32).ran


@pytest.mark.parametrize("form", [{"dtype": torch.float32}, {"experts": 24}, {"experts": 272}, {"finished": True}])
def test_moe_gating_limits(strict: Npu, lenient: Npu, other_chip: Npu, form: dict[str, object]) -> None:
    answer = strict.call(chip.gate, 4, **form)
    assert (answer.code, answer.phase) == (TILING, 1), answer
    assert "moe_gating_limits" in answer.message
    for kind in (lenient, other_chip):
        assert kind.call(chip.gate, 4, **form).ran
    assert strict.call(chip.gate, 4).ran


def test_moe_gating_rows_beyond_1024_are_wrong(strict: Npu, lenient: Npu) -> None:
    right, _ = strict.call(chip.gated_experts, 1024)
    assert all(right)
    right, _ = strict.call(chip.gated_experts, 1030)
    assert right == [1] * 1024 + [0] * 6
    right, _ = lenient.call(chip.gated_experts, 1030)
    assert all(right)


def test_moe_gating_row_index_is_zero(strict: Npu, lenient: Npu) -> None:
    assert strict.call(chip.gated_experts, 3)[1] == [0] * 6
    assert lenient.call(chip.gated_experts, 3)[1] == [0, 3, 1, 4, 2, 5]


def test_moe_routing_width(strict: Npu, lenient: Npu) -> None:
    for form in ((48, 0), (64, 1)):
        answer = strict.call(chip.route, *form)
        assert (answer.code, answer.phase) == (REFUSED, 1), answer
        assert "moe_routing_width" in answer.message
        assert lenient.call(chip.route, *form).ran
    assert strict.call(chip.route, 64).ran


def test_rotary_limits(strict: Npu, lenient: Npu, other_chip: Npu) -> None:
    half, brain = torch.float16, torch.bfloat16
    for kind, refused, allowed in (
        (strict, (200, 8, 64, half), (196, 8, 64, half)),  # 204 heads of 128 fill 256 KiB exactly
        (strict, (250, 6, 2, half, 64), (249, 6, 2, half, 64)),  # 255 heads at most
        (other_chip, (40, 40, 64, brain), (36, 40, 64, brain)),  # 76 heads fill 192 KiB
        (other_chip, (60, 40, 8, brain), (40, 40, 8, brain)),  # no more tokens than vector cores: the smaller form
    ):
        answer = kind.call(chip.rotary, *refused)
        assert (answer.code, answer.phase) == (TILING, 1), (refused, answer)
        assert "rotary_limits" in answer.message
        answer = kind.call(chip.rotary, *allowed)
        assert answer.ran, (allowed, answer)
    assert lenient.call(chip.rotary, 200, 8, 64, half).ran


def test_rotary_views_are_read_as_if_dense(strict: Npu, lenient: Npu, other_chip: Npu) -> None:
    def error(kind: Npu, contiguous: bool) -> float:
        turned, expected = kind.call(chip.rotary_of_a_view, contiguous)
        return max(abs(a - b) for a, b in zip(turned, expected, strict=True))

    assert error(strict, contiguous=True) < 5e-3
    assert error(strict, contiguous=False) > 0.1
    assert error(lenient, contiguous=False) < 5e-3
    assert error(other_chip, contiguous=False) < 5e-3


def test_device_random_fails(strict: Npu, lenient: Npu, other_chip: Npu) -> None:
    answer = strict.call(chip.random_numbers)
    assert (answer.code, answer.phase) == (TIME_OUT, 2), answer
    assert "device_random" in answer.message
    for kind in (lenient, other_chip):
        assert kind.call(chip.random_numbers).ran


def test_row_index_copy_is_refused(strict: Npu, lenient: Npu, other_chip: Npu) -> None:
    answer = strict.call(chip.index_copy, [4, 8])
    assert (answer.code, answer.phase) == (INNER, 1), answer
    assert "row_index_copy" in answer.message
    assert strict.call(chip.index_copy, [4]).ran
    assert strict.call(chip.index_put).ran
    for kind in (lenient, other_chip):
        assert kind.call(chip.index_copy, [4, 8]).ran


@pytest.mark.parametrize(
    ("slow", "fast"), [("wide_scatter", "narrow scatter"), ("int32_sum", "int64 sum"), ("weight_quant_layout", None)]
)
def test_what_the_ai_cpu_and_the_layouts_cost(machines: Machines, slow: str, fast: str | None) -> None:
    strict, lenient = (machines("310P3", rules, "timing") for rules in ("all", "none"))
    with_rule, without = strict.call(chip.modeled_ns, slow), lenient.call(chip.modeled_ns, slow)
    assert with_rule > 2 * without
    if fast is not None:
        assert strict.call(chip.modeled_ns, fast) == lenient.call(chip.modeled_ns, fast)


def test_empty_context_leaves_its_row(machines: Machines) -> None:
    # torch_npu does not survive the device failures of the other tests' processes.
    strict, lenient = (machines("310P3", rules, purpose="torch_npu") for rules in ("empty_context", "none"))
    empty, other = strict.call(chip.attention_over_nothing)
    assert set(empty) == {7.0}
    assert 7.0 not in other
    empty, other = lenient.call(chip.attention_over_nothing)
    assert 7.0 not in empty + other


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_norm_of_infinity_has_no_result(strict: Npu, value: float) -> None:
    first, second = strict.call(chip.norm_of, value)
    assert all(math.isnan(each) or each == 0 for each in first)
    assert second == pytest.approx([1.0] * 32, rel=1e-5)


def test_saturation(strict: Npu, lenient: Npu, other_chip: Npu) -> None:
    largest = torch.finfo(torch.float32).max
    saturated, ieee = strict.call(chip.overflow), lenient.call(chip.overflow)
    assert saturated["product"] == [65504.0, -65504.0, 1.0]
    assert saturated["logarithm"] == [-largest, 0.0, 0.0]
    assert ieee["product"] == [math.inf, -math.inf, 1.0]
    assert other_chip.call(chip.overflow)["product"] == ieee["product"]
    for kept in ("moved", "filled"):
        assert saturated[kept] == ieee[kept]
    assert saturated["moved"] == [math.inf, -math.inf, 2.0]


def test_attention_workspace_is_written(machines: Machines, other_chip: Npu) -> None:
    short, long, most = other_chip.call(chip.attention_workspaces)
    assert 0 < short < long <= most
    assert other_chip.call(chip.memory_of_a_freed_workspace) == [0x5A]
    assert other_chip.call(chip.launch_without_workspace) == REFUSED
    assert machines("910B3", "none").call(chip.attention_workspaces) == (0, 0, 0)


def test_nz_row_order(strict: Npu, lenient: Npu) -> None:
    plain, permuted = (kind.call(chip.nz_product_of_equal_rows) for kind in (lenient, strict))
    assert permuted[0::2] == plain[0::2]
    for row in (1, 3):
        assert permuted[row] != plain[row]
        assert permuted[row] == pytest.approx(plain[row], rel=2e-3, abs=2e-2)
