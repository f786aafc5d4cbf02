"""Attention in float64, on the host."""

from __future__ import annotations

import torch


def attended(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor | None
) -> torch.Tensor:
    """Float64 [T, heads, size] of query [T, heads, size], keys, values [L, kv heads, size] and hidden [T, L] bool."""
    repeats = query.shape[1] // keys.shape[1]
    keys, values = (part.double().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys) * query.shape[-1] ** -0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)


def ahead(tokens: int, keys: int) -> torch.Tensor:
    """[tokens, keys] bool: what the last `tokens` of `keys` must not see."""
    return torch.arange(keys)[None] > torch.arange(keys - tokens, keys)[:, None]
