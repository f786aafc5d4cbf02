"""Decode attention over a paged cache: _npu_paged_attention."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2}


def decode(nz: bool, heads: int, kv_heads: int, dim: int, block_size: int, dtype_name: str) -> float:
    """Largest error over sequences that end in the middle of a block, at its end, and after one token."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    lengths = [1, block_size, block_size + 1, 3 * block_size - 5]
    cache = reference.PagedCache(lengths, kv_heads, dim, block_size, dtype)
    query = torch.randn(len(lengths), heads, dim).to(dtype)
    context = torch.tensor(lengths, dtype=torch.int32)
    out = torch.empty_like(query).npu()
    key, value = cache.on_chip(nz)
    torch_npu._npu_paged_attention(
        query=query.npu(),
        key_cache=key,
        value_cache=value,
        num_kv_heads=kv_heads,
        num_heads=heads,
        scale_value=dim**-0.5,
        block_table=cache.block_table.npu(),
        context_lens=context.npu() if nz else context,
        out=out,
    )
    expected = torch.cat(
        [reference.attention(query[i : i + 1], *cache.sequence(i), dim**-0.5) for i in range(len(lengths))]
    )
    return reference.worst(out, expected)


@pytest.mark.chips("310P3")
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "block_size"), [(9, 3, 64, 128), (8, 8, 128, 128), (32, 8, 128, 64), (4, 1, 256, 64)]
)
def test_decode_from_a_fractal_cache(npu: Npu, heads: int, kv_heads: int, dim: int, block_size: int) -> None:
    assert npu.call(decode, True, heads, kv_heads, dim, block_size, "float16") < TOLERANCE["float16"]


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_decode_from_a_row_major_cache(npu: Npu, dtype: str) -> None:
    assert npu.call(decode, False, 32, 8, 128, 128, dtype) < TOLERANCE[dtype]


def replay_with_other_lengths() -> tuple[float, float]:
    """Errors before and after the lengths of a captured step were changed on the device."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(1)
    cache = reference.PagedCache([200, 200], 3, 64, 128, torch.float16)
    query = torch.randn(2, 9, 64).half()
    context = torch.tensor([17, 150], dtype=torch.int32).npu()
    query_npu, table, out = query.npu(), cache.block_table.npu(), torch.empty_like(query).npu()
    key, value = cache.on_chip(nz=True)
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        torch_npu._npu_paged_attention(
            query=query_npu,
            key_cache=key,
            value_cache=value,
            num_kv_heads=3,
            num_heads=9,
            scale_value=0.125,
            block_table=table,
            context_lens=context,
            out=out,
        )

    def error(lengths: list[int]) -> float:
        context.copy_(torch.tensor(lengths, dtype=torch.int32))
        graph.replay()
        expected = [reference.attention(query[i : i + 1], *cache.sequence(i, n), 0.125) for i, n in enumerate(lengths)]
        return reference.worst(out, torch.cat(expected))

    return error([17, 150]), error([199, 3])


@pytest.mark.chips("310P3")
def test_a_replayed_graph_reads_the_lengths_on_the_device(npu: Npu) -> None:
    before, after = npu.call(replay_with_other_lengths)
    assert before < TOLERANCE["float16"]
    assert after < TOLERANCE["float16"]


def padded_rows(nz: bool) -> list[float]:
    """A batch whose middle sequence is empty: per row, the distance to what the chip documents."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(2)
    cache = reference.PagedCache([20, 20, 20], 2, 64, 128, torch.float16)
    query = torch.randn(3, 4, 64).half()
    context = torch.tensor([20, 0, 7], dtype=torch.int32)
    out = torch.zeros_like(query).npu()
    key, value = cache.on_chip(nz)
    torch_npu._npu_paged_attention(
        query=query.npu(),
        key_cache=key,
        value_cache=value,
        num_kv_heads=2,
        num_heads=4,
        scale_value=0.125,
        block_table=cache.block_table.npu(),
        context_lens=context.npu() if nz else context,
        out=out,
    )
    first = reference.attention(query[:1], *cache.sequence(0), 0.125)
    # Atlas A2 has no query row for an empty sequence: the next sequence takes the next row.
    last = reference.attention(query[2:] if nz else query[1:2], *cache.sequence(2, 7), 0.125)
    expected = [first, torch.zeros_like(first), last] if nz else [first, last, torch.zeros_like(first)]
    return [reference.worst(out[i : i + 1], expected[i]) for i in range(3)]


@pytest.mark.chips("310P3")
def test_an_empty_sequence_gives_zeros_on_atlas_inference(npu: Npu) -> None:
    assert max(npu.call(padded_rows, True)) < TOLERANCE["float16"]


@pytest.mark.chips("910B3")
def test_an_empty_sequence_has_no_row_on_a2(npu: Npu) -> None:
    assert max(npu.call(padded_rows, False)) < TOLERANCE["float16"]


def set_up(dim: int, block_size: int, kv_heads: int, last: int, on_host: bool) -> None:
    """Validate a launch, without executing it, in the calling thread."""
    import torch
    import torch_npu

    cache = torch.zeros(4, kv_heads * dim // last, block_size, last, dtype=torch.float16).npu()
    query = torch.zeros(2, 4, dim, dtype=torch.float16).npu()
    context = torch.ones(2, dtype=torch.int32)
    torch_npu._npu_paged_attention_get_workspace(
        query=query,
        key_cache=cache,
        value_cache=cache,
        num_kv_heads=kv_heads,
        num_heads=4,
        scale_value=1.0,
        block_table=torch.zeros(2, 2, dtype=torch.int32).npu(),
        context_lens=context if on_host else context.npu(),
        out=torch.empty_like(query),
    )


@pytest.mark.chips("310P3")
def test_limits_of_atlas_inference(npu: Npu) -> None:
    npu.call(set_up, 128, 128, 2, 16, False)
    for refused in [
        (256, 128, 2, 16, False),  # block_size * head_size above 128 * 128
        (128, 128, 2, 128, False),  # a row-major cache
        (128, 128, 3, 16, False),  # heads that kv_heads does not divide
        (128, 128, 2, 16, True),  # lengths on the host
    ]:
        with pytest.raises(RuntimeError, match=r"setup failed|CreateOperation failed"):
            npu.call(set_up, *refused)
