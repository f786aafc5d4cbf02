"""Packed step inputs against what vLLM's runner computes token by token."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ascend_plugin.runner.block_tables import DeviceBlockTable
from ascend_plugin.runner.fill import (
    fill_batch,
    fill_drafted,
    fill_sampled,
    fill_slots,
    fill_states,
    fill_verification,
)
from ascend_plugin.runner.packed_inputs import PackedInputs
from ascend_plugin.runner.step_buffer import ALIGNMENT_BYTES, ModelShape, StepBuffer, plan_layout

BLOCK = 4


def _batch(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    requests = int(rng.integers(1, 6))
    scheduled = rng.integers(1, 7, requests).astype(np.int32)
    computed = rng.integers(0, 9, requests).astype(np.int32)
    tokens = rng.integers(0, 1000, (8, 16)).astype(np.int32)
    blocks = rng.permutation(64)[: 8 * 5].reshape(8, 5).astype(np.int32)
    return scheduled, computed, tokens, blocks


@pytest.mark.parametrize("seed", range(20))
def test_every_token_has_its_id_position_and_slot(seed: int) -> None:
    scheduled, computed, token_ids, blocks = _batch(seed)
    inputs = StepBuffer(64, 8, ModelShape((5,)), torch.device("cpu"))
    layout = inputs.layout(48, 8)
    arrays = inputs.host_arrays(layout)
    for array in arrays.values():
        array.fill(77)  # what an earlier step may have left
    owner, positions = fill_batch(arrays, scheduled, computed, token_ids)
    fill_slots(arrays["slots0"], blocks, BLOCK, owner, positions)
    views = inputs.upload(layout)
    token = 0
    for request, (new, old) in enumerate(zip(scheduled, computed, strict=True)):
        for position in range(old, old + new):
            assert views["positions"][token] == position
            assert views["input_ids"][token] == token_ids[request, position]
            assert views["slots0"][token] == blocks[request, position // BLOCK] * BLOCK + position % BLOCK
            token += 1
        assert views["query_start_loc"][request + 1] == token
        assert views["logits_indices"][request] == token - 1
        assert views["seq_lens"][request] == old + new
    assert not views["is_padding"][:token].any()
    assert views["is_padding"][token:].all()
    assert views["slots0"][token:].eq(-1).all()
    assert views["query_start_loc"][len(scheduled) + 1 :].eq(token).all()
    assert views["seq_lens"][len(scheduled) :].eq(1).all()


def test_sections_are_aligned_and_do_not_overlap() -> None:
    sections = sorted(
        plan_layout(7, 3, ModelShape((5, None, 9), position_rows=3, drafts=2)).sections.values(),
        key=lambda section: section.offset,
    )
    for section, following in pairwise(sections):
        assert section.offset % ALIGNMENT_BYTES == 0
        assert section.end <= following.offset


def test_views_of_a_layout_keep_their_addresses() -> None:
    inputs = StepBuffer(64, 8, ModelShape((5,)), torch.device("cpu"))
    first = {name: view.data_ptr() for name, view in inputs.on_device(inputs.layout(8, 8)).items()}
    inputs.upload(inputs.layout(32, 4))
    assert {name: view.data_ptr() for name, view in inputs.on_device(inputs.layout(8, 8)).items()} == first


def test_tables_on_the_device_follow_random_changes() -> None:
    """Requests join, grow, leave and swap rows; every block in use is on the device after each upload."""
    rng = np.random.default_rng(0)
    inputs = StepBuffer(64, 8, ModelShape((5, 9)), torch.device("cpu"))
    tables = [rng.integers(1, 1000, (8, width)).astype(np.int32) for width in (5, 9)]
    counts = [np.ones(8, np.int32), np.ones(8, np.int32)]
    for _ in range(200):
        requests = int(rng.integers(1, 9))
        layout = inputs.layout(int(rng.integers(requests, 65)), requests)
        for group, (table, used) in enumerate(zip(tables, counts, strict=True)):
            row, other = rng.choice(8, 2, replace=False)
            if rng.random() < 0.5:
                used[row] = rng.integers(1, table.shape[1] + 1)
                table[row, used[row] - 1] = rng.integers(1, 1000)
            else:
                table[[row, other]], used[[row, other]] = table[[other, row]], used[[other, row]]
            inputs.fill_table(group, table[:requests], used[:requests])
        arrays = inputs.host_arrays(layout)
        arrays["positions"][:] = rng.integers(0, 99, len(arrays["positions"]))
        views = inputs.upload(layout)
        assert views["positions"].numpy().tolist() == arrays["positions"].tolist()
        for group, (table, used) in enumerate(zip(tables, counts, strict=True)):
            for row in range(requests):
                assert views[f"block_table{group}"][row, : used[row]].tolist() == table[row, : used[row]].tolist()


def test_an_unchanged_table_is_not_sent() -> None:
    table = DeviceBlockTable(8, 512, torch.device("cpu"))
    blocks = np.arange(8 * 512, dtype=np.int32).reshape(8, 512)
    assert table.update(blocks[:3], used=4) == (slice(0, 3), slice(None))
    assert table.update(blocks[:3], used=4) is None
    blocks[1, 4] = 7
    assert table.update(blocks[:2], used=5) == (slice(0, 2), slice(None))  # row 0's fifth block is new, too
    blocks[1, 3:5] = 8, 9
    assert table.update(blocks[:2], used=5) == (slice(1, 2), slice(3, 5))
    blocks[1, 400] = 7  # beyond what is used
    assert table.update(blocks[:2], used=5) is None


def test_sampled_tokens_of_an_unchanged_decode_batch_go_straight() -> None:
    arrays = {name: np.zeros(8, np.int64) for name in ("sampled_rows", "sampled_targets")}
    assert fill_sampled(arrays, np.array([0, 1, 2]), np.array([1, 2, 3])) == (3, True)
    assert arrays["sampled_targets"][:3].tolist() == [0, 1, 2]


def test_sampled_tokens_follow_requests_that_moved() -> None:
    arrays = {name: np.zeros(8, np.int64) for name in ("sampled_rows", "sampled_targets")}
    assert fill_sampled(arrays, np.array([2, -1, 0]), np.array([1, 6, 7])) == (2, False)
    assert arrays["sampled_rows"][:2].tolist() == [2, 0]
    assert arrays["sampled_targets"][:2].tolist() == [0, 6]


@pytest.mark.parametrize("seed", range(20))
def test_drafts_go_where_vllm_s_own_loop_puts_them(seed: int) -> None:
    """Against the loops of GPUModelRunner._prepare_input_ids and the example of _calc_spec_decode_metadata."""
    rng = np.random.default_rng(seed)
    requests, width = int(rng.integers(1, 7)), 3
    previous = np.where(rng.random(requests) < 0.3, -1, rng.permutation(9)[:requests])
    drafts = np.where(previous < 0, 0, rng.integers(0, width + 1, requests))
    ends = np.cumsum(drafts + rng.integers(1, 5, requests))
    layout = plan_layout(64, 8, ModelShape((5,), drafts=width))
    arrays = {name: np.full(section.shape, -9, section.dtype) for name, section in layout.sections.items()}
    count, in_order = fill_sampled(arrays, previous, ends, drafts)
    placed = fill_drafted(arrays, previous, ends, drafts, width)
    known = [row for row in range(requests) if previous[row] >= 0]
    assert arrays["sampled_rows"][:count].tolist() == [previous[row] for row in known]
    assert arrays["sampled_targets"][:count].tolist() == [ends[row] - 1 - drafts[row] for row in known]
    assert in_order == (arrays["sampled_rows"][:count].tolist() == list(range(count)))
    sources = [previous[row] * width + place for row in known for place in range(drafts[row])]
    targets = [ends[row] - drafts[row] + place for row in known for place in range(drafts[row])]
    assert arrays["draft_rows"][:placed].tolist() == sources
    assert arrays["draft_targets"][:placed].tolist() == targets


def test_verification_is_vllm_s_example() -> None:
    """The comments of GPUModelRunner._calc_spec_decode_metadata."""
    layout = plan_layout(256, 8, ModelShape((5,), drafts=3))
    arrays = {name: np.zeros(section.shape, section.dtype) for name, section in layout.sections.items()}
    counts = fill_verification(arrays, np.array([4, 104, 107, 207, 209]), np.array([3, 0, 2, 0, 1]))
    assert counts == (11, 6)
    assert arrays["logits_indices"][:11].tolist() == [0, 1, 2, 3, 103, 104, 105, 106, 206, 207, 208]
    assert arrays["target_logits_indices"][:6].tolist() == [0, 1, 2, 5, 6, 9]
    assert arrays["bonus_logits_indices"][:5].tolist() == [3, 4, 7, 8, 10]
    assert arrays["cu_num_draft_tokens"][:5].tolist() == [3, 3, 5, 5, 6]
    assert arrays["cu_num_sampled_tokens"][:5].tolist() == [4, 5, 8, 9, 11]
    assert arrays["draft_places"][:6].tolist() == [1, 2, 3, 105, 106, 208]


def test_states_are_read_where_the_last_kept_token_left_them() -> None:
    table = np.arange(100, 130, dtype=np.int32).reshape(3, 10)
    read, written = np.full(4, -9), np.full((3, 4), -9)
    fill_states(read, written, table, np.array([0, 4, 9]), np.array([1, 3, 1]))
    assert read.tolist() == [100, 116, 129, 0]
    assert written[:, :2].T.tolist() == [[100, 101, 102], [114, 115, 116]]
    assert written[:, 3].tolist() == [0, 0, 0]


def small_runner() -> SimpleNamespace:
    """What PackedInputs reads and replaces of a runner of a plain model."""

    def buffer(size: int, dtype: torch.dtype = torch.int32) -> SimpleNamespace:
        return SimpleNamespace(gpu=torch.zeros(size, dtype=dtype))

    table = SimpleNamespace(max_num_blocks_per_req=5, slot_mapping=buffer(64), block_table=buffer(8))
    return SimpleNamespace(
        kv_cache_config=SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=None)]),
        input_batch=SimpleNamespace(block_table=SimpleNamespace(block_tables=[table])),
        input_ids=buffer(64),
        query_start_loc=buffer(9),
        positions=torch.zeros(64, dtype=torch.int64),
        seq_lens=torch.zeros(8, dtype=torch.int32),
        max_num_tokens=64,
        max_num_reqs=8,
        num_spec_tokens=0,
        uses_mrope=False,
        speculative_config=None,
        device=torch.device("cpu"),
    )


def addresses(runner: SimpleNamespace) -> list[int]:
    (table,) = runner.input_batch.block_table.block_tables
    buffers = (runner.input_ids.gpu, runner.positions, runner.query_start_loc.gpu, runner.seq_lens)
    return [buffer.data_ptr() for buffer in (*buffers, table.slot_mapping.gpu, table.block_table.gpu)]


def test_release_gives_the_runner_its_own_buffers_back() -> None:
    runner = small_runner()
    inputs, own = PackedInputs(runner), addresses(runner)
    inputs.bind(inputs.buffer.layout(16, 4))
    first = addresses(runner)
    assert not set(first) & set(own)
    inputs.bind(inputs.buffer.layout(8, 8))
    inputs.bind(inputs.buffer.layout(16, 4))
    assert addresses(runner) == first  # a graph's
    inputs.release()
    assert addresses(runner) == own
    inputs.release()
    assert addresses(runner) == own


def test_another_padding_than_vllm_s_ends_the_step() -> None:
    inputs = PackedInputs(small_runner())
    inputs.bind(inputs.buffer.layout(16, 4))
    inputs.agree(16)
    with pytest.raises(RuntimeError, match=r"laid out for 16 tokens.* pads the step to 24"):
        inputs.agree(24)
