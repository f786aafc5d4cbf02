"""What ATB's attention operators should give, in plain float32 torch on the CPU, and layouts of paged caches.

Runs in the process on the chip; nothing here calls torch_npu's operators.
"""

from __future__ import annotations

import torch

FRACTAL_NZ = 29
HIDDEN = -10000.0  # what the public examples put into additive masks


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """[q, heads, d], [kv, kv_heads, d], [kv, kv_heads, dv] and an additive mask that broadcasts to [heads, q, kv]."""
    group = query.shape[1] // key.shape[1]
    keys = key.float().repeat_interleave(group, dim=1)
    values = value.float().repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), keys) * scale
    if mask is not None:
        scores = scores + mask.float()
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)


def causal_mask(query_length: int, kv_length: int) -> torch.Tensor:
    """Each query sees the keys up to its own position; the last query is the last key."""
    return torch.full((query_length, kv_length), HIDDEN).triu(kv_length - query_length + 1)


def gather(cache: torch.Tensor, block_table: torch.Tensor, length: int) -> torch.Tensor:
    """The first `length` tokens of a sequence, from a cache [blocks, block_size, heads, dim]."""
    return cache[block_table.long()].flatten(0, 1)[:length]


def to_nz_cache(cache: torch.Tensor) -> torch.Tensor:
    """[blocks, block_size, heads, dim] as [blocks, heads * dim / 16, block_size, 16]."""
    blocks, block_size = cache.shape[:2]
    return cache.reshape(blocks, block_size, -1, 16).transpose(1, 2).contiguous()


def from_nz_cache(cache: torch.Tensor, heads: int) -> torch.Tensor:
    blocks, _, block_size, _ = cache.shape
    return cache.transpose(1, 2).reshape(blocks, block_size, heads, -1)


def to_nz_matrix(matrix: torch.Tensor) -> torch.Tensor:
    """[rows, cols] as [1, cols / 16, rows padded to 16, 16]: a mask of Atlas inference products."""
    rows = (matrix.shape[0] + 15) // 16 * 16
    padded = torch.zeros(rows, matrix.shape[1], dtype=matrix.dtype)
    padded[: matrix.shape[0]] = matrix
    return padded.reshape(rows, -1, 16).transpose(0, 1).contiguous().unsqueeze(0)


def on_chip_nz(tensor: torch.Tensor) -> torch.Tensor:
    """On the device, with FRACTAL_NZ as its format."""
    import torch_npu

    return torch_npu.npu_format_cast(tensor.npu(), FRACTAL_NZ)


def worst(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference."""
    return (actual.cpu().float() - expected.float()).abs().max().item()


class PagedCache:
    """Random keys and values behind a block table that is a permutation of the blocks."""

    def __init__(self, lengths: list[int], kv_heads: int, dim: int, block_size: int, dtype: torch.dtype) -> None:
        self.lengths, self.kv_heads = lengths, kv_heads
        width = max(1, (max(lengths) + block_size - 1) // block_size)
        blocks = width * len(lengths)
        self.key = torch.randn(blocks, block_size, kv_heads, dim).to(dtype)
        self.value = torch.randn(blocks, block_size, kv_heads, dim).to(dtype)
        self.block_table = torch.randperm(blocks, dtype=torch.int32).reshape(len(lengths), width)

    def sequence(self, index: int, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.lengths[index] if length is None else length
        row = self.block_table[index]
        return gather(self.key, row, tokens), gather(self.value, row, tokens)

    def on_chip(self, nz: bool) -> tuple[torch.Tensor, torch.Tensor]:
        if not nz:
            return self.key.npu(), self.value.npu()
        return on_chip_nz(to_nz_cache(self.key)), on_chip_nz(to_nz_cache(self.value))
