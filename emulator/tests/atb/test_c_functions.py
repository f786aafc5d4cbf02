"""ATB's C functions, as torch_npu's torch.ops.atb call them, against float32 torch on the CPU."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .reference import PagedCache, attention, causal_mask, gather, on_chip_nz, to_nz_cache, worst

RANK, ROPE = 512, 64


def latent(lengths: list[int], fractal: bool, dtype: torch.dtype) -> dict[str, float]:
    """Decoding with a latent cache: the largest errors of the output and of the log-sum-exp."""
    import torch_npu

    torch.manual_seed(0)
    heads, block_size, width = 16, 128, (max(lengths) + 127) // 128
    blocks = width * len(lengths)
    cache, rope = torch.randn(blocks, block_size, 1, RANK).to(dtype), torch.randn(blocks, block_size, 1, ROPE).to(dtype)
    table = torch.randperm(blocks, dtype=torch.int32).reshape(len(lengths), width)
    query, query_rope = (
        torch.randn(len(lengths), heads, RANK).to(dtype),
        torch.randn(len(lengths), heads, ROPE).to(dtype),
    )
    scale = (RANK + ROPE) ** -0.5
    stored = [on_chip_nz(to_nz_cache(part)) if fractal else part.npu() for part in (cache, rope)]
    mode = "nzcache" if fractal else "krope_ctkv"
    arguments = (query.npu(), query_rope.npu(), *stored, table.npu(), lengths, heads, scale, 1)
    output = torch_npu.atb.npu_multi_head_latent_attention(*arguments, cache_mode=mode)
    _, lse = torch_npu.atb.npu_multi_head_latent_attention(
        *arguments, True, calc_type="calc_type_ring", cache_mode=mode
    )
    errors = {"output": 0.0, "lse": 0.0}
    for b, length in enumerate(lengths):
        keys = torch.cat((gather(cache, table[b], length), gather(rope, table[b], length)), -1)
        rows = torch.cat((query[b : b + 1], query_rope[b : b + 1]), -1)
        expected = attention(rows, keys, keys[..., :RANK], scale)
        scores = torch.einsum("hd,kd->hk", rows[0].float(), keys[:, 0].float()) * scale
        errors["output"] = max(errors["output"], worst(output[b : b + 1], expected))
        errors["lse"] = max(errors["lse"], worst(lse[b, :, 0], scores.logsumexp(-1)))
    return errors


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("fractal", [False, True], ids=["row-major", "FRACTAL_NZ"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_latent_attention(npu: Npu, fractal: bool, dtype: torch.dtype) -> None:
    errors = npu.call(latent, [1, 130, 300], fractal, dtype)
    assert errors["output"] < (0.005 if dtype == torch.float16 else 0.04), errors
    assert errors["lse"] < (0.01 if dtype == torch.float16 else 0.05), errors


def ring(causal: bool) -> dict[str, float]:
    """Two parts of the keys, one after the other, must give attention over all of them."""
    import torch_npu

    torch.manual_seed(1)
    heads, kv_heads, lengths = 8, 4, [5, 33]
    tokens, scale = sum(lengths), 192**-0.5

    def make(count: int, size: int) -> torch.Tensor:
        return torch.randn(tokens, count, size).half()

    query, query_rope = make(heads, 128), make(heads, 64)
    parts = [(make(kv_heads, 128), make(kv_heads, 64), make(kv_heads, 128)) for _ in range(2)]
    mask = torch.ones(512, 512).triu(1).half()
    seq_len = torch.tensor([lengths, lengths], dtype=torch.int32)

    def call(part: int, before: tuple[torch.Tensor, torch.Tensor] | None) -> tuple[torch.Tensor, torch.Tensor]:
        key, key_rope, value = (tensor.npu() for tensor in parts[part])
        return torch_npu.atb.npu_ring_mla(
            query.npu(),
            query_rope.npu(),
            key,
            key_rope,
            value,
            mask.npu(),
            seq_len,
            heads,
            kv_heads,
            qk_scale=scale,
            mask_type="mask_type_triu" if causal and before is None else "no_mask",
            calc_type="calc_type_first_ring" if before is None else "calc_type_default",
            **({} if before is None else {"pre_out": before[0], "prev_lse": before[1]}),
        )

    first = call(0, None)
    output, lse = call(1, first)
    errors, begin = {"output": 0.0, "lse": 0.0}, 0
    for length in lengths:
        own = slice(begin, begin + length)
        rows = torch.cat((query[own], query_rope[own]), -1)
        keys = torch.cat([torch.cat((key[own], rope[own]), -1) for key, rope, _ in parts])
        values = torch.cat([value[own] for _, _, value in parts])
        hidden = torch.zeros(length, 2 * length)
        if causal:
            hidden[:, :length] = causal_mask(length, length)
        errors["output"] = max(errors["output"], worst(output[own], attention(rows, keys, values, scale, hidden)))
        grouped = keys.float().repeat_interleave(heads // kv_heads, 1)
        scores = torch.einsum("qhd,khd->hqk", rows.float(), grouped) * scale + hidden
        errors["lse"] = max(errors["lse"], worst(lse[:, own], scores.logsumexp(-1)))
        begin += length
    return errors


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("causal", [False, True])
def test_ring_attention_in_two_parts(npu: Npu, causal: bool) -> None:
    errors = npu.call(ring, causal)
    assert errors["output"] < 0.004 and errors["lse"] < 0.002, errors


def prefix() -> float:
    """New tokens behind a prefix in the cache."""
    import torch_npu

    torch.manual_seed(2)
    new, lengths, heads = [3, 17, 40], [9, 130, 40], 8
    cache = PagedCache(lengths, 2, 128, 128, torch.float16)
    query = torch.randn(sum(new), heads, 128).half()
    output = torch_npu.atb.npu_self_attention_prefix_encoder(
        query.npu(), cache.key.npu(), cache.value.npu(), cache.block_table.npu(), new, lengths, heads, 0.09, 2
    )
    error, begin = 0.0, 0
    for b, count in enumerate(new):
        own = query[begin : begin + count]
        expected = attention(own, *cache.sequence(b), 0.09, causal_mask(count, lengths[b]))
        error = max(error, worst(output[begin : begin + count], expected))
        begin += count
    return error


@pytest.mark.chips("910B3")
def test_prefix_encoder(npu: Npu) -> None:
    assert npu.call(prefix) < 0.004


def loaded(fractal: bool, running_totals: bool) -> bool:
    import torch_npu

    torch.npu.config.allow_internal_format = True  # the operator asks the tensor for its format
    torch.manual_seed(3)
    lengths, starts = [5, 0, 200], [0, 128, 128]
    cache = PagedCache(
        [length + start for length, start in zip(lengths, starts, strict=True)], 2, 64, 128, torch.float16
    )
    counts = torch.tensor(lengths, dtype=torch.int32)
    if running_totals:
        counts = torch.cat((torch.zeros(1), counts.cumsum(0))).int()
    rows = torch.zeros(sum(lengths), *((2, 64) if not fractal else (128,)), dtype=torch.float16)
    key, value = rows.npu(), rows.npu()
    torch_npu.atb.npu_paged_cache_load(
        *cache.on_chip(fractal),
        cache.block_table.npu(),
        counts.npu(),
        seq_starts=torch.tensor(starts, dtype=torch.int32).npu(),
        cumsum=running_totals,
        key=key,
        value=value,
    )
    wanted = [cache.sequence(b) for b in range(3)]
    for found, which in ((key, 0), (value, 1)):
        parts = [wanted[b][which][starts[b] :] for b in range(3)]
        if not torch.equal(found.cpu().view(-1, 2, 64), torch.cat(parts)):
            return False
    return True


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("fractal", [False, True], ids=["row-major", "FRACTAL_NZ"])
@pytest.mark.parametrize("running_totals", [False, True])
def test_tokens_loaded_from_the_cache(npu: Npu, fractal: bool, running_totals: bool) -> None:
    assert npu.call(loaded, fractal, running_totals)


def experts() -> tuple[bool, float]:
    import torch_npu

    torch.manual_seed(4)
    x, bias = torch.randn(19, 64).half(), torch.rand(64).half()
    copies, table = torch.randint(1, 4, (64,), dtype=torch.int32), torch.randint(0, 99, (64, 4), dtype=torch.int32)
    y, indices = torch_npu.atb.npu_fused_add_topk_div(
        x.npu(),
        bias.npu(),
        mapping_num=copies.npu(),
        mapping_table=table.npu(),
        group_num=8,
        group_topk=3,
        n=2,
        k=6,
        is_norm=True,
        scale=2.0,
        enable_expert_mapping=True,
    )
    scores = x.float().sigmoid()
    groups = (scores + bias.float()).unflatten(-1, (8, 8))
    kept = torch.zeros(19, 8, dtype=torch.bool).scatter_(
        -1, groups.topk(2, -1).values.sum(-1).topk(3, -1).indices, True
    )
    chosen = groups.masked_fill(~kept.unsqueeze(-1), 0.0).flatten(-2).topk(6, -1).indices
    weights = scores.gather(-1, chosen)
    mapped = table[chosen, torch.arange(19)[:, None] % copies[chosen].long()]
    return torch.equal(indices.cpu(), mapped), worst(y, weights / weights.sum(-1, keepdim=True) * 2.0)


@pytest.mark.chips("910B3")
def test_experts_of_the_best_groups(npu: Npu) -> None:
    same, error = npu.call(experts)
    assert same and error < 1e-5


def refused() -> str:
    import torch_npu

    query = torch.zeros(1, 4, RANK).half().npu()
    cache, rope = torch.zeros(2, 128, 1, RANK).half().npu(), torch.zeros(2, 128, 1, ROPE).half().npu()
    table = torch.zeros(1, 2, dtype=torch.int32).npu()
    try:
        torch_npu.atb.npu_multi_head_latent_attention(
            query, query[..., :ROPE].contiguous(), cache, rope, table, [300], 4, 1.0, 1
        )
        torch.npu.synchronize()  # torch_npu's own thread makes the call
    except RuntimeError as error:
        return str(error)
    return "not refused"


@pytest.mark.chips("310P3", "910B3")
def test_latent_attention_beyond_its_limits(npu: Npu) -> None:
    """Another product, and a length beyond the block table."""
    assert "AtbMLA" in npu.call(refused)
