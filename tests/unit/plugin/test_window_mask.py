"""The masks of a sliding window that decode graphs read, against their definition."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from ascend_plugin.attention.masks import HIDDEN_PAGED, last_token_window_mask


def mask_of_graph(lengths: list[int], query_len: int, window: int) -> tuple[list[list[float]], bool]:
    """[tokens, 64 keys] of a mask that is filled twice, and whether it stayed where it was, in FRACTAL_NZ."""
    import torch_npu

    from ascend_plugin.attention.masks import decode_window_mask, empty_decode_mask

    torch.npu.config.allow_internal_format = True
    mask = empty_decode_mask(len(lengths) * query_len, 64, torch.device("npu"))
    address = mask.data_ptr()
    for given in (lengths[::-1], lengths):
        decode_window_mask(torch.tensor(given, dtype=torch.int32).npu(), query_len, window, mask)
    kept = mask.data_ptr() == address and torch_npu.get_npu_format(mask) == 29
    rows = torch_npu.npu_format_cast(mask, 2)[0].transpose(0, 1).flatten(1)
    return rows[: len(lengths) * query_len].cpu().tolist(), kept


@pytest.mark.chips("310P3")
def test_each_token_sees_its_window_and_nothing_ahead(npu: Npu) -> None:
    lengths, query_len, window = [3, 40, 0, 64], 2, 16  # the third row is padding
    rows, kept = npu.call(mask_of_graph, lengths, query_len, window)
    assert kept
    mask = torch.tensor(rows)
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
