"""Which batch sizes are captured, for chips with few events and with many."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from vllm.config import CUDAGraphMode

from ascend_facts import chips
from ascend_plugin.graphs import budget as graphs
from ascend_plugin.graphs import events
from ascend_plugin.graphs.agreement import all_ranks

DUO, A2 = chips.find("310P3"), chips.find("910B3")


@pytest.mark.parametrize(
    ("layers", "tensor_parallel_size", "at_least", "at_most"),
    [(28, 1, graphs.MAX_GRAPHS, None), (64, 4, 2, 2), (28, 4, 2, 2), (94, 8, 1, 1)],
    ids=[
        "Qwen3-0.6B TP1",
        "Qwen3-32B TP4: two graphs, as documented",
        "Qwen3-0.6B TP4: no more is documented",
        "94 layers TP8",
    ],
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


def test_graphs_are_captured_while_what_they_took_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 1000
    monkeypatch.setattr(events, "available_events", lambda: left)
    meter, captured = events.EventMeter(), 0
    while meter.has_room():
        left, captured = left - 300, captured + 1
        meter.measure()
    assert meter.per_graph == 300
    assert captured == 3
    assert left >= graphs.RESERVED_EVENTS


def test_a_chip_that_does_not_count_its_events_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "available_events", lambda: None)
    meter = events.EventMeter()
    assert meter.has_room()
    meter.measure()
    assert meter.has_room()


def ask(rank: int, rendezvous: str, answers: list[bool], heard: object) -> None:
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    heard.put((rank, [all_ranks(answer, dist.group.WORLD) for answer in answers]))
    dist.destroy_process_group()


def test_one_rank_s_failure_is_all_ranks_failure(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    heard = context.Queue()
    answers = [[True, True, False], [True, False, True]]
    ranks = [
        context.Process(target=ask, args=(rank, f"file://{tmp_path / 'rendezvous'}", answers[rank], heard))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    told = dict(heard.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join()
    assert told == {0: [True, False, False], 1: [True, False, False]}
    assert all_ranks(False, None) is False
