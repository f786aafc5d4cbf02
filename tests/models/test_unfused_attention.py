"""Attention unfused of stock operators against its definition in fp64, on pages in random order."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

BLOCK, HEADS, KV_HEADS, SIZE, SCALE = 16, 6, 2, 32, 0.5
SLOPES = torch.linspace(0.02, 0.5, HEADS)
VARIANTS: dict[str, dict[str, Any]] = {
    "soft cap": {"soft_cap": 5.0},
    "soft cap and window": {"soft_cap": 5.0, "window": 40},
    "window within a block": {"soft_cap": 5.0, "window": 3},
    "ALiBi": {"alibi": True},
    "sinks": {"sinks": True},
    "sinks and window": {"sinks": True, "window": 40},
    "latent": {"value_size": 24},
    "latent and window": {"value_size": 24, "window": 40},
}
SINKS = torch.linspace(-1.0, 3.0, HEADS)


def by_definition(query, keys, values, first: int, scale: float, soft_cap=None, window=None, slopes=None, sinks=None):
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
    scores = scores.masked_fill(hidden, -torch.inf)
    if sinks is not None:  # one more key, without a value
        column = sinks.double()[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, column], dim=-1)
    return torch.einsum("hsl,lhd->shd", scores.softmax(-1)[..., : len(keys)], values)


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


def make_layer(device: str, variant: dict[str, Any], lengths: list[tuple[int, int]], decoding: bool, scratch: int):
    """(layer, query, pages, step) on the device."""
    from ascend_plugin.attention import unfused
    from ascend_plugin.attention.metadata import AscendMetadata, Phase

    unfused.SCRATCH_VALUES, unfused.QUERY_TOKENS = scratch, 48
    kv_heads = 1 if "value_size" in variant else KV_HEADS
    query, pages, table = make_step(lengths, HEADS, kv_heads, SIZE, seed=len(lengths))
    slopes = SLOPES.tolist() if variant.get("alibi") else None
    window, soft_cap = variant.get("window"), variant.get("soft_cap")
    sinks = SINKS.to(device) if variant.get("sinks") else None
    heads = HEADS, 1 if "value_size" in variant else KV_HEADS, SIZE
    layer = unfused.UnfusedPagedAttention(
        *heads, SCALE, window, soft_cap, slopes, sinks, value_size=variant.get("value_size")
    )
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
    keys, values = pages.to(device).unbind()
    return layer, query.to(device), (keys, keys if "value_size" in variant else values), step


def largest_error(
    device: str, variant: dict[str, Any], lengths: list[tuple[int, int]], decoding: bool, scratch: int
) -> float:
    """Root mean square error over that of the values, the worst of the requests'."""
    layer, query, pages, step = make_layer(device, variant, lengths, decoding, scratch)
    size = variant.get("value_size", SIZE)
    out = torch.full_like(query[..., :size], torch.nan)
    layer.attend(query, pages, step, out)
    options = {"soft_cap": variant.get("soft_cap"), "window": variant.get("window")}
    options["slopes"] = SLOPES if variant.get("alibi") else None
    options["sinks"] = SINKS if variant.get("sinks") else None
    query, found, table = query.cpu(), out.cpu(), step.block_table.cpu().long()
    begin, worst = 0, 0.0
    for row, (new, total) in enumerate(lengths):
        keys, values = (part.cpu()[table[row]].flatten(0, 1)[:total] for part in pages)
        new_queries = query[begin : begin + new]
        expected = by_definition(new_queries, keys, values[..., :size], total - new, SCALE, **options)
        error = (found[begin : begin + new].double() - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt()
        worst, begin = max(worst, float(error)), begin + new
    return worst


def host_traffic(variant: dict[str, Any], lengths: list[tuple[int, int]]) -> list[int]:
    """Copies and waits of a layer's attention, the first of its step."""
    from ascend_emulator import counters

    layer, query, pages, step = make_layer("npu", variant, lengths, False, 1 << 14)
    out = torch.empty_like(query)
    layer.attend(query, pages, step, out)  # slopes are uploaded once
    step.shared.clear()
    torch.npu.synchronize()
    counters.reset_stats()
    layer.attend(query, pages, step, out)
    stats = counters.stats()
    copies = [stats["copies"][name]["count"] for name in ("host_to_device", "device_to_host")]
    return copies + [stats["synchronizations"][name] for name in ("stream", "device", "blocking_copy", "event")]


MIXED = [(5, 5), (1, 70), (1, 1), (100, 100), (60, 131), (1, 33)]
DRAFTS = [(4, 40), (4, 4), (4, 101), (60, 60), (60, 90)]  # runs of requests with several tokens each
DECODE = [(1, 70), (1, 1), (1, 16), (1, 17), (1, 200)]


# One piece of keys, several pieces with requests kept together, and a block of one request at a time.
@pytest.mark.parametrize("scratch", [1 << 20, 1 << 14, 1 << 10])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.chips("310P3")
def test_agrees_with_the_definition(npu: Npu, variant: str, scratch: int) -> None:
    for lengths, decoding in ((MIXED, False), (DRAFTS, False), (DECODE, True)):
        assert npu.call(largest_error, "npu", VARIANTS[variant], lengths, decoding, scratch) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.chips("910B3")
def test_agrees_with_the_definition_on_a_cube_with_float32(npu: Npu, variant: str) -> None:
    for lengths, decoding in ((MIXED, False), (DRAFTS, False), (DECODE, True)):
        assert npu.call(largest_error, "npu", VARIANTS[variant], lengths, decoding, 1 << 14) < 1e-3


@pytest.mark.parametrize("variant", ["soft cap and window", "ALiBi"])
@pytest.mark.chips("310P3")
def test_nothing_waits_for_the_device(npu: Npu, variant: str) -> None:
    if not npu.is_emulated:
        pytest.skip("only emulated chips count what they do")
    assert not any(npu.call(host_traffic, VARIANTS[variant], MIXED))


@pytest.mark.parametrize("changed", [{"soft_cap": 5.5}, {"soft_cap": 5.0, "window": 41}])
def test_the_comparison_tells_a_wrong_cap_or_window(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    right = by_definition
    monkeypatch.setitem(globals(), "by_definition", lambda *args, **options: right(*args, **{**options, **changed}))
    unchanged = {"soft_cap": 5.0, **({"window": 40} if "window" in changed else {})}
    assert largest_error("cpu", unchanged, MIXED, False, 1 << 20) > 5e-3
