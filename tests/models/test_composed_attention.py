"""Attention composed of stock operators against its definition in fp64, on pages in random order."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

BLOCK = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "soft cap": {"soft_cap": 5.0},
    "soft cap and window": {"soft_cap": 5.0, "window": 40},
    "window within a block": {"soft_cap": 5.0, "window": 3},
    "ALiBi": {"alibi": True},
}


def by_definition(query, keys, values, first: int, scale: float, soft_cap=None, window=None, slopes=None):
    """One sequence: query [S, heads, size] at positions first, first + 1 ...; keys, values [L, kv heads, size]."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.double().repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("shd,lhd->hsl", query.double(), keys) * scale
    if soft_cap:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    distance = torch.arange(keys.shape[0]) - (first + torch.arange(query.shape[0]))[:, None]
    if slopes is not None:
        scores = scores + slopes.double()[:, None, None] * distance
    hidden = distance > 0 if window is None else (distance > 0) | (distance <= -window)
    return torch.einsum("hsl,lhd->shd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)


def make_step(lengths: list[tuple[int, int]], heads: int, kv_heads: int, size: int, seed: int):
    """Random tensors of a step of requests (new tokens, tokens in all): query, paged keys and values, table, rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator)).half()

    widest = max(-(-total // BLOCK) for _, total in lengths) + 1
    order = random.Random(seed).sample(range(1, 1 + widest * len(lengths)), widest * len(lengths))
    table = torch.tensor(order, dtype=torch.int32).view(len(lengths), widest)
    pages = draw(2, 1 + table.numel(), BLOCK, kv_heads, size)
    return draw(sum(new for new, _ in lengths), heads, size) * 2, pages, table


def largest_error(
    device: str, variant: dict[str, Any], lengths: list[tuple[int, int]], decoding: bool, scratch: int
) -> float:
    """Root mean square error over that of the values, the worst of the requests'."""
    from ascend_plugin.attention import composed
    from ascend_plugin.attention.metadata import AscendMetadata, Phase

    composed.SCRATCH_VALUES, composed.QUERY_TOKENS = scratch, 48
    heads, kv_heads, size = 6, 2, 32
    query, pages, table = make_step(lengths, heads, kv_heads, size, seed=len(lengths))
    options = dict(variant)
    slopes = torch.linspace(0.02, 0.5, heads) if options.pop("alibi", False) else None
    given = None if slopes is None else slopes.tolist()
    window, soft_cap = options.get("window"), options.get("soft_cap")
    layer = composed.ComposedAttention(heads, kv_heads, size, 0.5, window, soft_cap, given)
    totals = torch.tensor([total for _, total in lengths], dtype=torch.int32)
    step = AscendMetadata(
        phase=Phase.DECODE if decoding else Phase.MIXED,
        num_tokens=len(query),
        query_lens=torch.tensor([new for new, _ in lengths], dtype=torch.int32),
        seq_lens_host=totals,
        seq_lens=totals.to(device),
        block_table=table.to(device),
        slot_mapping=torch.empty(0),
        causal=True,
    )
    out = torch.full_like(query, torch.nan).to(device)
    layer.attend(query.to(device), (pages[0].to(device), pages[1].to(device)), step, out)
    found, begin, worst = out.cpu(), 0, 0.0
    for row, (new, total) in enumerate(lengths):
        keys, values = (part[table[row].long()].flatten(0, 1)[:total] for part in pages)
        expected = by_definition(query[begin : begin + new], keys, values, total - new, 0.5, slopes=slopes, **options)
        error = (found[begin : begin + new].double() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()
        worst, begin = max(worst, float(error)), begin + new
    return worst


MIXED = [(5, 5), (1, 70), (1, 1), (100, 100), (60, 131), (1, 33)]
DRAFTS = [(4, 40), (4, 4), (4, 101), (60, 60), (60, 90)]  # runs of requests with several tokens each
DECODE = [(1, 70), (1, 1), (1, 16), (1, 17), (1, 200)]


# One piece of keys, several pieces with requests kept together, and a block of one request at a time.
@pytest.mark.parametrize("scratch", [1 << 20, 1 << 14, 1 << 10])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.chips("310P3", "910B3")
def test_agrees_with_the_definition(npu: Npu, variant: str, scratch: int) -> None:
    for lengths, decoding in ((MIXED, False), (DRAFTS, False), (DECODE, True)):
        assert npu.call(largest_error, "npu", VARIANTS[variant], lengths, decoding, scratch) < 2e-3


@pytest.mark.parametrize("changed", [{"soft_cap": 5.5}, {"soft_cap": 5.0, "window": 41}])
def test_the_comparison_tells_a_wrong_cap_or_window(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    right = by_definition
    monkeypatch.setitem(globals(), "by_definition", lambda *args, **options: right(*args, **{**options, **changed}))
    unchanged = {"soft_cap": 5.0, **({"window": 40} if "window" in changed else {})}
    assert largest_error("cpu", unchanged, MIXED, False, 1 << 20) > 5e-3
