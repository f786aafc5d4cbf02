"""Attention over paged caches: ATB's operators on Ascend 310P, FusedInferAttentionScore on the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ascend_cli.doctor.probe import cases_fused_infer
from ascend_cli.doctor.probe.bench import Bench
from ascend_cli.doctor.probe.case import LONG, MASK_SIZE, Case, WrongResult
from ascend_cli.doctor.probe.references import ahead, attended
from ascend_facts.chips import ChipSpec

NZ, NZ_COLUMNS = 29, 16
PREFILL_MASK, PAGED_MASK = 3, 5  # the compressed masks of SelfAttention and PagedAttention
HIDDEN_PREFILL, HIDDEN_PAGED = -60000.0, -10000.0
GROUPS = ((8, 8, 128), (16, 8, 128), (14, 2, 64), (16, 2, 128))  # query heads, key heads, size


def attention(chip: ChipSpec) -> Iterator[Case]:
    if chip.attention == "fused_infer":
        yield from cases_fused_infer.attention(chip)
        return
    yield Case("_npu_reshape_and_cache, slots of -1", write_cache)
    for heads, kv_heads, size in GROUPS:
        shape = f"{heads}/{kv_heads} heads of {size}"
        for tokens in (1, 15, 16, 17, 300):
            yield Case(
                f"_npu_flash_attention_v3, {shape}, {tokens} tokens", partial(prefill, heads, kv_heads, size, [tokens])
            )
        yield Case(f"_npu_paged_attention, {shape}", partial(decode, heads, kv_heads, size))
    yield Case("_npu_flash_attention_v3, several sequences", partial(prefill, 8, 4, 128, [3, 1, 40]))
    yield Case("_npu_paged_attention, 4/2 heads of 256, blocks of 64", partial(decode, 4, 2, 256))
    yield Case("_npu_paged_attention, context length 0", empty_context, "empty_context")
    for past in (16, MASK_SIZE - 1, MASK_SIZE, MASK_SIZE + 1, LONG):
        yield Case(f"_npu_paged_attention_splitfuse_v2, {past} keys before", partial(chunk, past, True))
    for past in (16, 300):
        yield Case(f"_npu_paged_attention_splitfuse, window, {past} keys before", partial(chunk, past, False))
    yield Case("_npu_flash_attention_unpad, an encoder's", encode)


def block_size(chip: ChipSpec, size: int) -> int:
    return chip.kv_block_size(size)


# ---------------------------------------------------------------- Ascend 310P


def _nz(matrix: torch.Tensor) -> torch.Tensor:
    """[M, N] as [1, N / 16, M, 16]."""
    rows, columns = matrix.shape
    return matrix.reshape(1, rows, columns // NZ_COLUMNS, NZ_COLUMNS).transpose(1, 2).contiguous()


def _caches(
    bench: Bench, keys: list[torch.Tensor], values: list[torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Both caches in FRACTAL_NZ with every sequence in them, and the block table, whose blocks are in disorder."""
    import torch_npu

    heads, size = keys[0].shape[1:]
    block = block_size(bench.chip, size)
    width = max(-(-len(each) // block) for each in keys)
    order = torch.randperm(len(keys) * width, generator=torch.Generator().manual_seed(4)) + 1
    table = order.view(len(keys), width).to(torch.int32)
    caches = []
    for kind in (keys, values):
        rows = torch.zeros(len(order) + 1, block, heads * size, dtype=torch.float16)
        for sequence, each in enumerate(kind):
            for index in range(-(-len(each) // block)):
                piece = each[index * block : (index + 1) * block].reshape(-1, heads * size)
                rows[table[sequence, index], : len(piece)] = piece
        striped = rows.view(len(rows), block, -1, NZ_COLUMNS).transpose(1, 2).contiguous()
        caches.append(torch_npu.npu_format_cast(bench.put(striped), NZ))
    return caches, table


def write_cache(bench: Bench) -> None:
    """Tokens go to their slots; those with a slot of -1 go nowhere."""
    import torch_npu

    heads, size, block, blocks = 2, 64, 128, 4
    new = [bench.randn(9, heads, size, dtype=torch.float16) for _ in range(2)]
    slots = torch.tensor([5, -1, 0, 130, 511, -1, 255, 256, 77], dtype=torch.int32)
    shape = (blocks, heads * size // NZ_COLUMNS, block, NZ_COLUMNS)
    caches = [torch_npu.npu_format_cast(bench.put(torch.zeros(shape, dtype=torch.float16)), NZ) for _ in range(2)]
    torch_npu._npu_reshape_and_cache(*(bench.put(each) for each in new), *caches, bench.put(slots))
    for given, cache in zip(new, caches, strict=True):
        rows = torch.zeros(blocks * block, heads * size, dtype=torch.float16)
        rows[slots[slots >= 0].long()] = given[slots >= 0].flatten(1)
        expected = rows.view(blocks, block, -1, NZ_COLUMNS).transpose(1, 2)
        bench.same(torch_npu.npu_format_cast(cache, 2).cpu().view(shape), expected.contiguous())


def prefill(heads: int, kv_heads: int, size: int, lengths: list[int], bench: Bench) -> None:
    import torch_npu

    tokens = sum(lengths)
    q = bench.randn(tokens, heads, size, dtype=torch.float16)
    k, v = (bench.randn(tokens, kv_heads, size, dtype=torch.float16) for _ in range(2))
    pattern = torch.full((MASK_SIZE, MASK_SIZE), HIDDEN_PREFILL, dtype=torch.float16).triu_(1)
    mask = torch_npu.npu_format_cast(bench.put(_nz(pattern)), NZ)
    out = bench.inside(torch.full_like(q, 7.0))
    torch_npu._npu_flash_attention_v3(
        query=bench.put(q), key=bench.put(k), value=bench.put(v), mask=mask, mask_type=PREFILL_MASK,
        seq_len=torch.tensor(lengths, dtype=torch.int32), scale_value=size**-0.5, num_heads=heads,
        num_kv_heads=kv_heads, out=out,
    )  # fmt: skip
    pieces = zip(*(part.split(lengths) for part in (q, k, v)), strict=True)
    bench.close(out, torch.cat([attended(q, k, v, ahead(len(q), len(q))) for q, k, v in pieces]))


def _sequences(bench: Bench, lengths: list[int], kv_heads: int, size: int) -> list[list[torch.Tensor]]:
    shapes = [(max(1, length), kv_heads, size) for length in lengths]
    return [[bench.randn(*shape, dtype=torch.float16) for shape in shapes] for _ in range(2)]


def decode(heads: int, kv_heads: int, size: int, bench: Bench) -> None:
    lengths = [1, 127, 128, 129, 1000]
    keys, values = _sequences(bench, lengths, kv_heads, size)
    q = bench.randn(len(lengths), heads, size, dtype=torch.float16)
    out = _decoded(bench, q, keys, values, lengths)
    rows = [attended(q[i : i + 1], keys[i], values[i], None) for i in range(len(lengths))]
    bench.close(out, torch.cat(rows))


def _decoded(
    bench: Bench, q: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], lengths: list[int]
) -> torch.Tensor:
    import torch_npu

    caches, table = _caches(bench, keys, values)
    out = bench.inside(torch.full_like(q, 7.0))
    torch_npu._npu_paged_attention(
        query=bench.put(q), key_cache=caches[0], value_cache=caches[1], num_kv_heads=keys[0].shape[1],
        num_heads=q.shape[1], scale_value=q.shape[-1] ** -0.5, block_table=bench.put(table),
        context_lens=bench.put(torch.tensor(lengths, dtype=torch.int32)), out=out,
    )  # fmt: skip
    return out


def empty_context(bench: Bench) -> None:
    """A row without keys: a chip may leave it as it was."""
    lengths = [0, 3]
    keys, values = _sequences(bench, lengths, 2, 128)
    q = bench.randn(2, 2, 128, dtype=torch.float16)
    found = _decoded(bench, q, keys, values, lengths).cpu()
    bench.close(found[1:], attended(q[1:], keys[1], values[1], None))
    if bool((found[0] == 7.0).all()):
        raise WrongResult("the row of a sequence without keys was not written: it keeps what its memory held")


def chunk(past: int, compressed: bool, bench: Bench) -> None:
    """Tokens behind keys that are in the cache, with the fixed mask or one of their own."""
    import torch_npu

    heads, kv_heads, size, new = 4, 2, 64, [3, 16, 1]
    lengths = [past + count for count in new]
    keys, values = _sequences(bench, lengths, kv_heads, size)
    q = bench.randn(sum(new), heads, size, dtype=torch.float16)
    caches, table = _caches(bench, keys, values)
    out = bench.inside(torch.full_like(q, 7.0))
    window = 64
    hidden = [ahead(count, length) for count, length in zip(new, lengths, strict=True)]
    if not compressed:
        for each, count, length in zip(hidden, new, lengths, strict=True):
            each |= torch.arange(length)[None] <= torch.arange(length - count, length)[:, None] - window
    arguments = {
        "query": bench.put(q), "key_cache": caches[0], "value_cache": caches[1], "block_table": bench.put(table),
        "context_lens": bench.put(torch.tensor(lengths, dtype=torch.int32)),
        "seq_len": torch.tensor(new, dtype=torch.int32), "num_kv_heads": kv_heads, "num_heads": heads,
        "scale_value": size**-0.5, "out": out,
    }  # fmt: skip
    if compressed:
        pattern = torch.full((MASK_SIZE, MASK_SIZE), HIDDEN_PAGED, dtype=torch.float16).triu_(1)
        torch_npu._npu_paged_attention_splitfuse_v2(**arguments, mask=bench.put(pattern), mask_type=PAGED_MASK)
    else:
        whole = torch.zeros(-(-sum(new) // 16) * 16, -(-max(lengths) // 16) * 16, dtype=torch.float16)
        for each, begin in zip(hidden, torch.tensor([0, *new]).cumsum(0).tolist(), strict=False):
            whole[begin : begin + each.shape[0], : each.shape[1]] = each.half() * HIDDEN_PAGED
        mask = torch_npu.npu_format_cast(bench.put(_nz(whole)), NZ)
        torch_npu._npu_paged_attention_splitfuse(**arguments, mask=mask)
    rows = zip(q.split(new), keys, values, hidden, strict=True)
    bench.close(out, torch.cat([attended(*row) for row in rows]))


def encode(bench: Bench) -> None:
    import torch_npu

    lengths, heads, size = [5, 33, 1], 4, 64
    q, k, v = (bench.randn(sum(lengths), heads, size, dtype=torch.float16) for _ in range(3))
    out = bench.inside(torch.full_like(q, 7.0))
    torch_npu._npu_flash_attention_unpad(
        query=bench.put(q), key=bench.put(k), value=bench.put(v), seq_len=torch.tensor(lengths, dtype=torch.int32),
        scale_value=size**-0.5, num_heads=heads, num_kv_heads=heads, out=out,
    )  # fmt: skip
    pieces = zip(*(part.split(lengths) for part in (q, k, v)), strict=True)
    bench.close(out, torch.cat([attended(q, k, v, None) for q, k, v in pieces]))
