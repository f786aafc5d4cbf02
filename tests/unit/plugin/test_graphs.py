"""Which batch sizes are captured, for chips with few events and with many."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from vllm.config import CUDAGraphMode

from ascend_facts import chips
from ascend_plugin.graphs import budget as graphs

DUO, A2 = chips.find("310P3"), chips.find("910B3")


@pytest.mark.parametrize(
    ("layers", "tensor_parallel_size", "at_least", "at_most"),
    [(28, 1, graphs.MAX_GRAPHS, None), (64, 4, 2, 2), (28, 4, 4, 8), (94, 8, 1, 1)],
    ids=["Qwen3-0.6B TP1", "Qwen3-32B TP4: two graphs, as documented", "Qwen3-0.6B TP4", "94 layers TP8"],
)
def test_budget_of_310p(layers: int, tensor_parallel_size: int, at_least: int, at_most: int | None) -> None:
    budget = graphs.graph_budget(DUO, layers, tensor_parallel_size)
    assert budget >= at_least
    assert at_most is None or budget <= at_most


def test_a_chip_with_many_events_is_not_limited() -> None:
    assert graphs.graph_budget(A2, 64, 8) >= graphs.MAX_GRAPHS


@pytest.mark.parametrize("largest", [1, 2, 7, 16, 100, 256, 512])
@pytest.mark.parametrize("budget", range(1, 20))
def test_sizes_fit_the_budget_and_reach_the_largest_batch(budget: int, largest: int) -> None:
    sizes = graphs.capture_sizes(budget, largest)
    assert 1 <= len(sizes) <= budget
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == largest


def test_small_sizes_go_first_when_room_is_short() -> None:
    assert graphs.capture_sizes(2, 256) == [16, 256]
    assert graphs.capture_sizes(16, 8) == [1, 2, 4, 8]


def test_no_room_at_all() -> None:
    assert graphs.capture_sizes(0, 256) == []


@pytest.mark.parametrize(("most", "kept"), [(64, [1, 4, 16, 64]), (20, [1, 4, 16]), (0, [])])
def test_sizes_that_read_too_much_are_not_captured(most: int, kept: list[int]) -> None:
    mode = CUDAGraphMode.FULL_DECODE_ONLY
    compilation = SimpleNamespace(
        cudagraph_capture_sizes=[1, 4, 16, 64], max_cudagraph_capture_size=64, cudagraph_mode=mode
    )
    graphs.limit_tokens(compilation, most, "a reason")
    assert compilation.cudagraph_capture_sizes == kept
    assert compilation.cudagraph_mode == (mode if kept else CUDAGraphMode.NONE)
    assert not kept or compilation.max_cudagraph_capture_size == kept[-1]
