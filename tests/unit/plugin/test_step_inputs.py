"""Packed step inputs against what vLLM's runner computes token by token."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ascend_plugin.step_inputs import ALIGNMENT_BYTES, StepInputs, fill_batch, fill_group, fill_sampled, plan_layout

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
    inputs = StepInputs(64, 8, (5,), torch.device("cpu"))
    layout = inputs.layout(48, 8)
    arrays = inputs.host_arrays(layout)
    for array in arrays.values():
        array.fill(77)  # what an earlier step may have left
    owner, positions = fill_batch(arrays, scheduled, computed, token_ids)
    fill_group(arrays, 0, blocks, BLOCK, owner, positions, len(scheduled))
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
    assert views["seq_lens"][len(scheduled) :].eq(0).all()
    assert views["block_table0"][len(scheduled) :].eq(0).all()


def test_sections_are_aligned_and_do_not_overlap() -> None:
    sections = sorted(plan_layout(7, 3, (5, 2)).sections.values(), key=lambda section: section.offset)
    for section, following in pairwise(sections):
        assert section.offset % ALIGNMENT_BYTES == 0
        assert section.end <= following.offset


def test_views_of_a_layout_keep_their_addresses() -> None:
    inputs = StepInputs(64, 8, (5,), torch.device("cpu"))
    first = {name: view.data_ptr() for name, view in inputs.on_device(inputs.layout(8, 8)).items()}
    inputs.upload(inputs.layout(32, 4))
    assert {name: view.data_ptr() for name, view in inputs.on_device(inputs.layout(8, 8)).items()} == first


def test_sampled_tokens_of_an_unchanged_decode_batch_go_straight() -> None:
    arrays = {name: np.zeros(8, np.int64) for name in ("sampled_rows", "sampled_targets")}
    assert fill_sampled(arrays, np.array([0, 1, 2]), np.array([1, 2, 3])) == (3, True)


def test_sampled_tokens_follow_requests_that_moved() -> None:
    arrays = {name: np.zeros(8, np.int64) for name in ("sampled_rows", "sampled_targets")}
    assert fill_sampled(arrays, np.array([2, -1, 0]), np.array([1, 6, 7])) == (2, False)
    assert arrays["sampled_rows"][:2].tolist() == [2, 0]
    assert arrays["sampled_targets"][:2].tolist() == [0, 6]
