"""The first pass of a draft model, against the layout told token by token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from ascend_plugin.runner.draft_model import AscendDraftModel

BLOCK_SIZE, LONGEST = 4, 14


def proposer() -> AscendDraftModel:
    """With the buffers that the first pass reads and writes, filled with what no answer is."""
    found = object.__new__(AscendDraftModel)
    found.device, found.block_size, found.max_model_len = torch.device("cpu"), BLOCK_SIZE, LONGEST
    found.input_ids = torch.full((40,), -77, dtype=torch.int32)
    found.positions = torch.full((40,), -77, dtype=torch.int64)
    found.arange = torch.arange(41, dtype=torch.int32)
    return found


def metadata(lengths: Sequence[int], computed: Sequence[int]) -> CommonAttentionMetadata:
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    totals = torch.tensor([a + b for a, b in zip(lengths, computed, strict=True)], dtype=torch.int32)
    return CommonAttentionMetadata(
        query_start_loc=ends,
        query_start_loc_cpu=ends.clone(),
        seq_lens=totals,
        num_reqs=len(lengths),
        num_actual_tokens=sum(lengths),
        max_query_len=max(lengths),
        max_seq_len=int(totals.max()),
        block_table_tensor=torch.arange(1, 1 + 4 * len(lengths), dtype=torch.int32).view(-1, 4),
        slot_mapping=torch.zeros(sum(lengths), dtype=torch.int64),
        seq_lens_cpu_upper_bound=totals.clone(),
    )


@pytest.mark.parametrize(
    ("lengths", "computed", "refused"),
    [
        ([3], [0], None),  # a prompt
        ([3, 1, 4], [0, 7, 2], None),
        ([4, 4, 1, 4], [3, 8, 5, 0], [0, 2, 0, 3]),  # three drafts each, of which some were refused
        ([4], [10], [1]),  # the last place that a sequence may have ...
        ([4], [10], [0]),  # ... and one beyond it, which has no slot
    ],
)
def test_kept_tokens_then_the_new_one_then_nothing(
    lengths: list[int], computed: list[int], refused: list[int] | None
) -> None:
    tokens = [100 * request + place for request, length in enumerate(lengths) for place in range(length)]
    positions = [start + place for start, length in zip(computed, lengths, strict=True) for place in range(length)]
    given, drafter = metadata(lengths, computed), proposer()
    count, last, longer = drafter.set_inputs_first_pass(
        torch.tensor(tokens, dtype=torch.int32),
        torch.arange(900, 900 + len(lengths), dtype=torch.int32),
        torch.tensor(positions),
        torch.empty(0),
        None,
        given,
        None if refused is None else torch.tensor(refused, dtype=torch.int32),
    )
    ids, places, slots, ends = [], [], [], []
    for request, length in enumerate(lengths):
        dropped = refused[request] if refused else 0
        ends.append(len(ids) + length - dropped)
        for place in range(length + 1):
            kept, position = place <= length - dropped, computed[request] + place
            said = 900 + request if place == length - dropped else 100 * request + place
            ids.append(said if kept else 0)
            places.append(position if kept else 0)
            block = 1 + 4 * request + position // BLOCK_SIZE
            slots.append(block * BLOCK_SIZE + position % BLOCK_SIZE if kept and position < LONGEST else -1)
    assert count == len(ids)
    assert drafter.input_ids.tolist() == ids + [-77] * (40 - count)
    assert drafter.positions.tolist() == places + [-77] * (40 - count)
    assert longer.slot_mapping.tolist() == slots
    assert last.tolist() == ends
    grown = [length + 1 for length in lengths]
    assert longer.query_start_loc_cpu.diff().tolist() == longer.query_start_loc.diff().tolist() == grown
    assert longer.seq_lens.equal(given.seq_lens + 1) and longer.seq_lens_cpu_upper_bound.equal(given.seq_lens + 1)
    assert (longer.num_actual_tokens, longer.max_query_len) == (count, max(grown))
