"""Writing the paged cache (_npu_reshape_and_cache) and rotating queries and keys (_npu_rotary_embedding)."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu


def write_cache(nz: bool, dtype_name: str) -> tuple[bool, bool]:
    """Whether the written slots hold the tokens, and whether all others kept their content."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    blocks, block_size, heads, dim = 6, 64, 3, 64

    def random(*sizes: int) -> torch.Tensor:
        return torch.randint(-100, 100, sizes).to(dtype)

    caches = [random(blocks, block_size, heads, dim) for _ in range(2)]
    tokens = [random(5, heads, dim) for _ in range(2)]
    slots = torch.tensor([0, 383, -1, 64, 130], dtype=torch.int32)  # the first, the last, none, a block's first, any
    on_chip = [reference.on_chip_nz(reference.to_nz_cache(c)) if nz else c.npu() for c in caches]
    torch_npu._npu_reshape_and_cache(tokens[0].npu(), tokens[1].npu(), *on_chip, slots.npu())
    results = [c.cpu() for c in on_chip]
    results = [reference.from_nz_cache(c, heads) if nz else c for c in results]
    kept = [i for i, slot in enumerate(slots) if slot >= 0]
    written = all(
        torch.equal(result.flatten(0, 1)[slots[kept].long()], rows[kept])
        for result, rows in zip(results, tokens, strict=True)
    )
    untouched = torch.ones(blocks * block_size, dtype=torch.bool)
    untouched[slots[kept].long()] = False
    preserved = all(
        torch.equal(result.flatten(0, 1)[untouched], before.flatten(0, 1)[untouched])
        for result, before in zip(results, caches, strict=True)
    )
    return written, preserved


@pytest.mark.chips("310P3")
def test_tokens_go_to_their_slots_of_a_fractal_cache(npu: Npu) -> None:
    assert npu.call(write_cache, True, "float16") == (True, True)


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_tokens_go_to_their_slots_of_a_row_major_cache(npu: Npu, dtype: str) -> None:
    assert npu.call(write_cache, False, dtype) == (True, True)


def rotate(neox: bool) -> float:
    """Largest error of queries and keys against the rotation of complex pairs."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(0)
    heads, kv_heads, dim, tokens, positions = 9, 3, 64, 11, 50
    angles = torch.outer(torch.arange(positions).float(), 10000.0 ** (-torch.arange(0, dim, 2) / dim))
    table = torch.cat([angles.cos(), angles.sin()], -1).half()
    where = torch.randint(0, positions, (tokens,))
    query, key = torch.randn(tokens, heads * dim).half(), torch.randn(tokens, kv_heads * dim).half()
    query_npu, key_npu = query.npu(), key.npu()

    torch_npu._npu_rotary_embedding(where.npu(), query_npu, key_npu, dim, table.npu(), neox)
    cos, sin = table[where].float().chunk(2, -1)

    def expected(x: torch.Tensor) -> torch.Tensor:
        pairs = x.float().view(tokens, -1, dim)
        first, second = (
            (pairs[..., : dim // 2], pairs[..., dim // 2 :]) if neox else (pairs[..., ::2], pairs[..., 1::2])
        )
        c, s = cos[:, None], sin[:, None]
        rotated = (first * c - second * s, second * c + first * s)
        joined = torch.cat(rotated, -1) if neox else torch.stack(rotated, -1).flatten(-2)
        return joined.reshape(tokens, -1)

    return max(reference.worst(query_npu, expected(query)), reference.worst(key_npu, expected(key)))


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("neox", [True, False])
def test_rotary_embedding(npu: Npu, neox: bool) -> None:
    assert npu.call(rotate, neox) < 4e-3
