"""FusedInferAttentionScore as Ascend 910B and later run it: packed, by rectangles, over half-pages, with scratch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import Case, WrongResult
from ascend_cli.doctor.probe.references import ahead, attended
from ascend_facts.chips import ChipSpec

CAUSAL, BAND, NO_MASK = 3, 4, 0
UNLIMITED = 2147483647
BLOCK = 128
GROUPS = ((8, 8, 128), (16, 8, 128), (14, 2, 64), (16, 2, 128))


def attention(chip: ChipSpec) -> Iterator[Case]:
    for name in sorted({"float16", chip.preferred_dtype}):
        dtype = getattr(torch, name)
        yield Case(f"_npu_reshape_and_cache {name}, slots of -1", partial(write_cache, dtype))
        for heads, kv_heads, size in GROUPS:
            shape = f"{heads}/{kv_heads} heads of {size}, {name}"
            packed = partial(packed_batch, heads, kv_heads, size, dtype)
            yield Case(
                f"FusedInferAttentionScore TND, prompts, {shape}", partial(packed, [1, 15, 17, 300], [0] * 4, None)
            )
            yield Case(
                f"FusedInferAttentionScore TND, decoding, {shape}", partial(packed, [1] * 4, [0, 126, 128, 999], None)
            )
        chunks = partial(packed_batch, 4, 2, 128, dtype, [3, 16, 1])
        for past in (2047, 2049, 5000):
            yield Case(f"FusedInferAttentionScore TND, {past} keys before, {name}", partial(chunks, [past] * 3, None))
        yield Case(f"FusedInferAttentionScore TND, a window, {name}", partial(chunks, [300] * 3, 64))
        for size in (96, 256):
            shape = f"heads of {size}, {name}"
            yield Case(f"FusedInferAttentionScore BSH, decoding, {shape}", partial(rectangle, size, dtype, 1))
            yield Case(f"FusedInferAttentionScore BSH, chunks, {shape}", partial(rectangle, size, dtype, 5))
        yield Case(f"half-pages of one cache, {name}", partial(half_pages, dtype))
        yield Case(f"FusedInferAttentionScore TND, an encoder's, {name}", partial(encode, dtype))
    yield Case("scratch memory of FusedInferAttentionScore", scratch, "attention_workspace")


def _reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    tokens, keys = len(q), len(k)
    hidden = ahead(tokens, keys)
    if window is not None:
        hidden |= torch.arange(keys)[None] <= torch.arange(keys - tokens, keys)[:, None] - window
    return attended(q, k, v, hidden)


def _paged(
    bench: Bench, kinds: list[list[torch.Tensor]], half: bool = False
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Caches [blocks, block, kv heads * size] and the block table; as half-pages of one tensor where asked for."""
    sequences, width = len(kinds[0]), max(-(-len(each) // BLOCK) for each in kinds[0])
    order = torch.randperm(sequences * width, generator=torch.Generator().manual_seed(4)) + 1
    table = order.view(sequences, width).to(torch.int32)
    rows = []
    for kind in kinds:
        pages = torch.zeros(len(order) + 1, BLOCK, kind[0][0].numel(), dtype=kind[0].dtype)
        for sequence, each in enumerate(kind):
            for index in range(-(-len(each) // BLOCK)):
                piece = each[index * BLOCK : (index + 1) * BLOCK].flatten(1)
                pages[table[sequence, index], : len(piece)] = piece
        rows.append(pages)
    if not half:
        return [bench.put(pages) for pages in rows], table
    whole = bench.put(torch.stack(rows, dim=1))  # [blocks, key | value, block, width]
    blocks, step = len(order) + 1, rows[0][0].numel()
    shape, strides = (2 * blocks - 1, BLOCK, rows[0].shape[-1]), (step, rows[0].shape[-1], 1)
    return [whole.as_strided(shape, strides, offset) for offset in (0, step)], table * 2


def _arguments(
    bench: Bench, layout: str, heads: tuple[int, int], size: int, lengths: list[int], keys: list[int],
    table: torch.Tensor, mask: tuple[torch.Tensor | None, int], window: int | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "atten_mask": mask[0], "actual_seq_lengths": lengths, "actual_seq_lengths_kv": keys,
        "block_table": bench.put(table),
        "num_heads": heads[0], "num_key_value_heads": heads[1], "scale": size**-0.5, "input_layout": layout,
        "block_size": BLOCK, "sparse_mode": mask[1], "pre_tokens": UNLIMITED if window is None else window - 1,
        "next_tokens": UNLIMITED if window is None else 0,
    }  # fmt: skip


def _mask(bench: Bench) -> torch.Tensor:
    return bench.put(torch.ones(2048, 2048, dtype=torch.int8).triu_(1))


def _launch(tensors: list[torch.Tensor], out: torch.Tensor, arguments: dict[str, Any], workspace: Any = None) -> None:
    import torch_npu

    lse = torch.empty(1, dtype=torch.float32, device=out.device)
    torch_npu.npu_fused_infer_attention_score.out(*tensors, **arguments, workspace=workspace, out=[out, lse])


def _batch(
    bench: Bench, heads: int, kv_heads: int, size: int, dtype: torch.dtype, new: list[int], past: list[int]
) -> tuple[torch.Tensor, list[list[torch.Tensor]], list[int]]:
    totals = [count + before for count, before in zip(new, past, strict=True)]
    q = bench.randn(sum(new), heads, size, dtype=dtype)
    return q, [[bench.randn(total, kv_heads, size, dtype=dtype) for total in totals] for _ in range(2)], totals


def packed_batch(
    heads: int, kv_heads: int, size: int, dtype: torch.dtype, new: list[int], past: list[int], window: int | None,
    bench: Bench,
) -> None:  # fmt: skip
    q, kinds, totals = _batch(bench, heads, kv_heads, size, dtype, new, past)
    caches, table = _paged(bench, kinds)
    out = bench.inside(torch.full_like(q, 7.0))
    ends = torch.tensor(new).cumsum(0).tolist()
    mask = _mask(bench), CAUSAL if window is None else BAND
    _launch(
        [bench.put(q), *caches],
        out,
        _arguments(bench, "TND", (heads, kv_heads), size, ends, totals, table, mask, window),
    )
    rows = zip(q.split(new), *kinds, strict=True)
    bench.close(out, torch.cat([_reference(q, k, v, window) for q, k, v in rows]))


def rectangle(size: int, dtype: torch.dtype, length: int, bench: Bench) -> None:
    heads, kv_heads, past = 4, 2, [3, 130, 255]
    q, kinds, totals = _batch(bench, heads, kv_heads, size, dtype, [length] * 3, past)
    caches, table = _paged(bench, kinds)
    out = bench.inside(torch.full((3, length, heads * size), 7.0).to(dtype))
    mask = (None, NO_MASK) if length == 1 else (_mask(bench), CAUSAL)
    rows = bench.put(q).view(3, length, -1)
    arguments = _arguments(bench, "BSH", (heads, kv_heads), size, [length] * 3, totals, table, mask, None)
    _launch([rows, *caches], out, arguments)
    pieces = zip(q.split(length), *kinds, strict=True)
    bench.close(out.view(-1, heads, size), torch.cat([_reference(q, k, v, None) for q, k, v in pieces]))


def half_pages(dtype: torch.dtype, bench: Bench) -> None:
    """Keys in the even half-pages of one tensor, values in the odd ones: views that overlap, with an offset."""
    import torch_npu

    heads, kv_heads, size, past = 4, 2, 128, [3, 130, 255]
    q, kinds, totals = _batch(bench, heads, kv_heads, size, dtype, [1] * 3, past)
    caches, table = _paged(bench, kinds, half=True)
    out = bench.inside(torch.full_like(q, 7.0))
    mask = _mask(bench), CAUSAL
    arguments = _arguments(bench, "TND", (heads, kv_heads), size, [1, 2, 3], totals, table, mask, None)
    _launch([bench.put(q), *caches], out, arguments)
    pieces = zip(q.split(1), *kinds, strict=True)
    bench.close(out, torch.cat([_reference(q, k, v, None) for q, k, v in pieces]))
    new = [bench.randn(2, kv_heads, size, dtype=dtype) for _ in range(2)]
    slots = torch.tensor([2 * BLOCK * 1 + 5, -1], dtype=torch.int32)  # token 5 of block 1, in half-pages
    views = [cache.view(cache.shape[0], BLOCK, kv_heads, size) for cache in caches]
    before = views[1].cpu()
    torch_npu._npu_reshape_and_cache(*(bench.put(each) for each in new), *views, bench.put(slots))
    bench.same(views[0][2, 5], new[0][0])
    bench.same(views[1][2, 5], new[1][0])
    before[2, 5] = new[1][0]
    before[1::2], after = 0, views[1].cpu()
    after[1::2] = 0  # the other halves are keys
    bench.same(after, before, "values of the cache")


def write_cache(dtype: torch.dtype, bench: Bench) -> None:
    import torch_npu

    heads, size, blocks = 2, 64, 4
    new = [bench.randn(9, heads, size, dtype=dtype) for _ in range(2)]
    slots = torch.tensor([5, -1, 0, 130, 511, -1, 255, 256, 77], dtype=torch.int32)
    caches = [bench.inside(torch.zeros(blocks, BLOCK, heads, size, dtype=dtype)) for _ in range(2)]
    torch_npu._npu_reshape_and_cache(*(bench.put(each) for each in new), *caches, bench.put(slots))
    for given, cache in zip(new, caches, strict=True):
        rows = torch.zeros(blocks * BLOCK, heads, size, dtype=dtype)
        rows[slots[slots >= 0].long()] = given[slots >= 0]
        bench.same(cache.flatten(0, 1), rows)


def encode(dtype: torch.dtype, bench: Bench) -> None:
    lengths, heads, size = [5, 33, 1], 4, 64
    q, k, v = (bench.randn(sum(lengths), heads, size, dtype=dtype) for _ in range(3))
    out = bench.inside(torch.full_like(q, 7.0))
    ends = torch.tensor(lengths).cumsum(0).tolist()
    arguments = {
        "actual_seq_lengths": ends, "actual_seq_lengths_kv": ends, "num_heads": heads, "num_key_value_heads": heads,
        "scale": size**-0.5, "input_layout": "TND",
    }  # fmt: skip
    _launch([bench.put(each) for each in (q, k, v)], out, arguments)
    pieces = zip(*(part.split(lengths) for part in (q, k, v)), strict=True)
    bench.close(out, torch.cat([attended(q, k, v, None) for q, k, v in pieces]))


def scratch(bench: Bench) -> None:
    """How much the operator asks for at its longest, and whether it writes there: graphs must then keep it."""
    import torch_npu

    heads, kv_heads, size, past = 4, 2, 128, [3, 130, 255]
    q, kinds, totals = _batch(bench, heads, kv_heads, size, bench.half, [1] * 3, past)
    caches, table = _paged(bench, kinds)
    arguments = _arguments(
        bench, "TND", (heads, kv_heads), size, [1, 2, 3], totals, table, (_mask(bench), CAUSAL), None
    )
    tensors = [bench.put(q), *caches]
    longest = {**arguments, "actual_seq_lengths_kv": [table.shape[1] * BLOCK] * 3}
    asked = torch_npu._npu_fused_infer_attention_score_get_max_workspace(*tensors, **longest)
    bench.facts["attention_workspace_bytes"] = asked.nbytes
    if not asked.nbytes:
        return
    asked.zero_()
    out = torch.empty_like(tensors[0])
    _launch(tensors, out, arguments, asked)
    written = int((asked.cpu() != 0).sum())
    bench.close(out, torch.cat([_reference(q, k, v, None) for q, k, v in zip(q.split(1), *kinds, strict=True)]))
    if written:
        raise WrongResult(f"it asks for {asked.nbytes:,} bytes and writes {written:,} of them: graphs must keep them")
