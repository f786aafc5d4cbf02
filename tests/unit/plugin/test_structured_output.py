"""Grammar masks: rows in the right place, bits in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascend_plugin.ops.structured_output import arrange_rows, mask_logits


@pytest.mark.parametrize("vocabulary", [64, 70, 33])
def test_bits_become_minus_infinity(vocabulary: int) -> None:
    rng = np.random.default_rng(0)
    words = -(-vocabulary // 32)
    bitmask = rng.integers(-(2**31), 2**31, (3, words)).astype(np.int32)
    bitmask[1] = -1
    logits = torch.zeros(3, vocabulary)
    mask_logits(logits, torch.from_numpy(bitmask))
    for row in range(3):
        for token in range(vocabulary):
            allowed = int(bitmask[row, token // 32]) >> (token % 32) & 1
            assert (logits[row, token] == 0) == bool(allowed), (row, token)


def test_rows_follow_the_batch_and_its_drafts() -> None:
    bitmask = np.array([[10], [11], [12], [20], [0], [0]], dtype=np.int32)  # b with two drafts, then d with none
    rows = arrange_rows(bitmask, ["b", "gone", "d"][::2], ["a", "b", "c", "d"], {"b": [1, 2], "c": [3]}, 7)
    assert rows[:, 0].tolist() == [-1, 10, 11, 12, -1, -1, 20]


def test_a_request_that_left_the_batch_is_skipped() -> None:
    bitmask = np.array([[10], [20]], dtype=np.int32)
    assert arrange_rows(bitmask, ["gone", "a"], ["a"], {}, 1)[:, 0].tolist() == [20]
