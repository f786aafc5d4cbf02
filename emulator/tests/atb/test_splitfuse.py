"""Chunked prefill over a paged cache: _npu_paged_attention_splitfuse and _v2 (the compressed 2048 x 2048 mask)."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu

TOLERANCE = 2e-3
# (new tokens, tokens with the cached prefix): prompts, decode steps, chunks after prefixes within and beyond the mask
CHUNKS = [(5, 5), (40, 200), (1, 77), (130, 130), (150, 2300), (1, 2100)]


def chunked_prefill(mask_kind: str, masks_future: bool = True) -> float:
    """Largest error with a mask of the given form; a mask that hides nothing must show."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(0)
    heads, kv_heads, dim, scale = 9, 3, 64, 0.125
    query_lengths = [new for new, _ in CHUNKS]
    lengths = [length for _, length in CHUNKS]
    cache = reference.PagedCache(lengths, kv_heads, dim, 128, torch.float16)
    query = torch.randn(sum(query_lengths), heads, dim).half()
    out = torch.empty_like(query).npu()
    key, value = cache.on_chip(nz=True)
    hidden = reference.HIDDEN if masks_future else 0.0
    if mask_kind == "compressed":
        operator = torch_npu._npu_paged_attention_splitfuse_v2
        mask = torch.full((2048, 2048), hidden, dtype=torch.float16).triu(1).npu()
    else:
        operator = torch_npu._npu_paged_attention_splitfuse
        rows = [
            torch.nn.functional.pad(reference.causal_mask(*chunk), (0, max(lengths) - chunk[1]), value=reference.HIDDEN)
            for chunk in CHUNKS
        ]
        rows_of_tokens = torch.cat(rows).half() if masks_future else torch.zeros(len(query), max(lengths)).half()
        padded = torch.nn.functional.pad(rows_of_tokens, (0, -max(lengths) % 16))
        mask = reference.on_chip_nz(reference.to_nz_matrix(padded)) if mask_kind == "nz" else padded.npu()
    operator(
        query=query.npu(),
        key_cache=key,
        value_cache=value,
        mask=mask,
        block_table=cache.block_table.npu(),
        seq_len=torch.tensor(query_lengths, dtype=torch.int32),
        context_lens=torch.tensor(lengths, dtype=torch.int32).npu(),
        num_kv_heads=kv_heads,
        num_heads=heads,
        scale_value=scale,
        out=out,
    )
    expected = [
        reference.attention(chunk, *cache.sequence(i), scale, reference.causal_mask(*CHUNKS[i]))
        for i, chunk in enumerate(query.split(query_lengths))
    ]
    return reference.worst(out, torch.cat(expected))


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("mask_kind", ["compressed", "nz", "nd"])
def test_chunks_see_their_prefix_and_no_future(npu: Npu, mask_kind: str) -> None:
    assert npu.call(chunked_prefill, mask_kind) < TOLERANCE


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("mask_kind", ["compressed", "nz"])
def test_the_mask_is_read_not_assumed(npu: Npu, mask_kind: str) -> None:
    assert npu.call(chunked_prefill, mask_kind, False) > 100 * TOLERANCE
