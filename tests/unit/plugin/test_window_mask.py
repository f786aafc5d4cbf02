"""The masks of a sliding window that decode graphs read, against their definition."""

from __future__ import annotations

import torch

from ascend_plugin.attention.masks import HIDDEN_PAGED, decode_window_mask, last_token_window_mask


def test_each_token_sees_its_window_and_nothing_ahead() -> None:
    lengths, query_len, window = [3, 40, 0, 64], 2, 16  # the third row is padding
    mask = torch.full((len(lengths) * query_len, 64), 7.0, dtype=torch.float16)
    decode_window_mask(torch.tensor(lengths, dtype=torch.int32), query_len, window, mask)
    for row, length in enumerate(lengths):
        for token in range(query_len):
            position = length - query_len + token
            seen = [key for key in range(64) if position - window < key <= position]
            visible = (mask[row * query_len + token] == 0).nonzero().flatten().tolist()
            assert visible == seen
    assert set(mask.unique().tolist()) == {0.0, HIDDEN_PAGED}


def test_a_single_token_sees_its_window_and_padding_its_first_key() -> None:
    lengths, window = [3, 40, 0, 64, 16], 16
    hidden = torch.zeros(len(lengths), 80, dtype=torch.bool)
    last_token_window_mask(torch.tensor(lengths, dtype=torch.int32), window, hidden)
    for row, length in enumerate(lengths):
        seen = list(range(max(0, length - window), length)) or [0]
        assert (~hidden[row]).nonzero().flatten().tolist() == seen
