"""Accepted drafts are counted by request, whatever rows do; states at ends of blocks are copied by these counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from ascend_plugin.cache.recurrent_state import BlockEnds
from ascend_plugin.runner.accepted import AcceptedTokens

CPU = torch.device("cpu")


def ended(*finished: str, resumed: tuple[str, ...] = ()) -> SimpleNamespace:
    cached = SimpleNamespace(resumed_req_ids=set(resumed))
    return SimpleNamespace(finished_req_ids=set(finished), preempted_req_ids=None, scheduled_cached_reqs=cached)


def test_counts_stay_with_their_request() -> None:
    accepted = AcceptedTokens(8, 3, CPU)
    accepted.note(torch.tensor([[5, 6, 7], [5, -1, -1], [5, 6, -1]], dtype=torch.int32), ["a", "b", "c"], None)
    accepted.collect()
    assert [accepted.of(name) for name in ("c", "a", "b", "new")] == [2, 3, 1, 1]
    assert accepted.by_row() == [3, 1, 2]
    accepted.note(torch.tensor([[5, -1, -1]], dtype=torch.int32), ["a"], None)  # the others sit out
    accepted.collect()
    assert [accepted.of(name) for name in ("a", "b", "c")] == [1, 1, 2]
    assert accepted.by_row() == [1]


def test_a_request_that_ends_or_begins_anew_is_forgotten() -> None:
    accepted = AcceptedTokens(8, 2, CPU)
    accepted.note(torch.tensor([[5, 6], [5, 6], [5, 6]], dtype=torch.int32), ["a", "b", "c"], None)
    accepted.collect()
    accepted.forget(ended("a", resumed=("b",)))
    assert [accepted.of(name) for name in ("a", "b", "c")] == [1, 1, 2]


def test_collecting_again_changes_nothing() -> None:
    accepted = AcceptedTokens(8, 2, CPU)
    accepted.collect()
    assert accepted.by_row() == []
    accepted.note(torch.tensor([[5, 6]], dtype=torch.int32), ["a"], None)
    accepted.collect()
    accepted.collect()
    assert accepted.of("a") == 2


def test_a_state_is_copied_if_its_token_was_kept_and_then_gone_on_from() -> None:
    """Three sequences whose drafts end blocks: kept in place, kept elsewhere, refused."""
    states = [
        [torch.arange(20).repeat_interleave(8).view(20, 8).clone() for _ in range(2)],
        [torch.arange(20)[:, None]],
    ]
    ends = BlockEnds(
        states,
        rows=np.array([0, 1, 3]),
        sources=np.array([[2, 4, 6], [12, 14, 16]]),
        targets=np.array([[3, 5, 7], [13, 15, 17]]),
        needed=np.array([2, 1, 2]),
        in_place=np.array([True, False, True]),
    )
    accepted = AcceptedTokens(8, 2, CPU)
    accepted.note(torch.tensor([[5, 6], [5, -1], [5, 6], [5, -1]], dtype=torch.int32), list("abcd"), ends)
    accepted.collect()
    assert [accepted.of(name) for name in "abcd"] == [1, 1, 2, 1]
    assert accepted.by_row() == [2, 1, 2, 1]  # as sampled
    for state in states[0]:
        assert state[[3, 5, 7], 0].tolist() == [2, 4, 7]
    assert states[1][0][[13, 15, 17], 0].tolist() == [12, 14, 17]
