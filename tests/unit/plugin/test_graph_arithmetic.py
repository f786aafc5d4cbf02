"""How many graphs a chip's streams and events allow, and of which sizes: figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

from ascend_facts.chips import find
from ascend_plugin.graphs import budget

DUO = find("310P3")


def test_graphs_within_streams_and_events() -> None:
    tight = replace(DUO, max_streams=74, max_events=64 + 2 * (2 + 41 * 3), graph_lengths_on_device=True)
    assert budget.graph_budget(tight, 20, 1) == 10  # ten streams, 125 pairs of events
    assert budget.graph_budget(tight, 20, 2) == 2  # 41 collectives of three events
    assert budget.graph_budget(replace(tight, max_events=64 + 2 * (2 + 41 * 3) - 1), 20, 2) == 1
    waits = replace(tight, graph_lengths_on_device=False, max_streams=1024)
    assert budget.graph_budget(waits, 20, 1) == 250 // 22
    unlimited = replace(DUO.forms, graphs_with_collectives=0)
    streams = replace(DUO, max_streams=64 + 7, max_events=100_000, forms=unlimited)
    assert (budget.graph_budget(streams, 20, 1), budget.graph_budget(streams, 20, 2)) == (7, 3)


def test_graphs_with_collectives_are_as_few_as_others_run_on_a_card() -> None:
    roomy = replace(DUO, max_streams=100_000, max_events=100_000)
    assert roomy.forms.graphs_with_collectives == 2
    assert (budget.graph_budget(roomy, 4, 2), budget.graph_budget(roomy, 4, 1) > 2) == (2, True)


def test_ladders() -> None:
    assert budget.ladder(100) == [1, 2, 4, 8, 16, 32, 48, 64, 96, 100]
    assert budget.ladder(1) == [1]
    assert budget.ladder(1 << 20)[-3:] == [1 << 19, 3 << 18, 1 << 20]
    assert budget.capture_sizes(8, 64) == [1, 2, 4, 8, 16, 32, 48, 64]
    assert budget.capture_sizes(2, 8) == [1, 8]  # none reaches the matrix unit's rows: the ends of the ladder
    assert budget.capture_sizes(99, 8192) == budget.capture_sizes(16, 8192)
    assert budget.capture_sizes(0, 100) == []
    assert budget.capture_sizes(16, 64) == [1, 2, 4, 8, 16, 32, 48, 64]
    assert budget.capture_sizes(7, 64) == [1, 2, 4, 8, 16, 32, 64]  # powers alone
    assert budget.capture_sizes(5, 64) == [16, 32, 64]  # those below the matrix unit's rows go first
    assert budget.capture_sizes(2, 256) == [16, 256]
    assert budget.capture_sizes(3, 512) == [16, 64, 512]
    assert budget.capture_sizes(1, 512) == [512]
    assert budget.capture_sizes(1, 8) == [8]
