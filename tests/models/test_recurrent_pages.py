"""Recurrent states in vLLM's cache: rows written whole must be what vLLM's own layout says, and memory must add up."""

from __future__ import annotations

import pytest
import torch
from vllm.model_executor.layers.mamba.abstract import MambaBase

from ascend_facts import chips
from ascend_plugin import detection
from ascend_plugin.attention.metadata import AscendMetadata, Phase
from ascend_plugin.cache.kv_cache import accounted_share
from ascend_plugin.ops.gated_delta_net import AscendGatedDeltaNet

SHAPES, PAGE_BYTES = ((3, 8), (2, 4, 4)), 256  # convolution fp16 (48 bytes), state fp32 (128 bytes), padding


@pytest.fixture(autouse=True, params=["310P3", "910B3"])
def _forms_of_a_chip(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The layer computes on the CPU here, in the forms of each chip."""
    monkeypatch.setattr(detection, "current_chip", lambda: chips.find(request.param))


class Layer(AscendGatedDeltaNet):
    """The layer's cache without its weights."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def get_state_shape(self):
        return SHAPES

    def get_state_dtype(self):
        return torch.float16, torch.float32


def test_rows_are_laid_out_as_vllm_lays_them_out() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(-128, 128, (5, 1, 1, PAGE_BYTES), dtype=torch.int8, generator=generator)
    before, layer, theirs = raw.clone(), Layer(), Layer()
    layer.bind_kv_cache(raw)
    MambaBase.bind_kv_cache(theirs, raw)
    slots = torch.tensor([3, 1])
    window = torch.randn(2, *SHAPES[0], generator=generator).half()
    state = torch.randn(2, *SHAPES[1], generator=generator)
    layer._write(slots, window, state, layer._read(slots)[2])
    assert theirs.kv_cache[0][slots].equal(window) and theirs.kv_cache[1][slots].equal(state)
    read = layer._read(slots)
    assert read[0].equal(window) and read[1].equal(state)
    content = window[0].nbytes + state[0].nbytes
    assert raw[..., content:].equal(before[..., content:]), "padding was written"
    untouched = torch.tensor([0, 2, 4])
    assert raw[untouched].equal(before[untouched])


@pytest.mark.parametrize(("kinds", "share"), [("a", 1.0), ("m", 1.0), ("am", 0.5)])
def test_memory_beside_the_nz_cache_is_accounted_for(kinds: str, share: float) -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec

    made = {
        "a": FullAttentionSpec(block_size=64, num_kv_heads=2, head_size=128, dtype=torch.float16),
        "m": MambaSpec(block_size=64, shapes=SHAPES, dtypes=(torch.float16, torch.float32)),
    }
    assert accounted_share([made[kind] for kind in kinds for _ in range(3)]) == share


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([1, 1, 1], [(0, 3, 0, 3)]),
        ([5], [(0, 1, 0, 5)]),
        ([1, 1, 7, 1, 3, 4], [(0, 2, 0, 2), (2, 3, 2, 9), (3, 4, 9, 10), (4, 5, 10, 13), (5, 6, 13, 17)]),
        ([2, 0], [(0, 1, 0, 2)]),
        ([3, 3, 2, 0, 2], [(0, 2, 0, 6), (2, 3, 6, 8), (4, 5, 8, 10)]),
    ],
)
def test_a_batch_is_cut_into_parts_of_equal_lengths(lengths: list[int], parts: list[tuple[int, ...]]) -> None:
    found = step_of(lengths, sum(lengths)).uniform_spans
    assert [(rows.start, rows.stop, tokens.start, tokens.stop) for rows, tokens in found] == parts


def test_padding_of_drafts_makes_rows_like_the_others() -> None:
    step = step_of([2, 2, 0, 0], 8)
    assert step.uniform_spans == [(slice(0, 4), slice(0, 8))]
    assert step.cumulative_query_lens == [2, 4, 6, 8]
    assert step.kv_lens == [12, 12, 2, 2]
    assert step_of([2, 1, 0, 0], 8).cumulative_query_lens == [2, 3, 3, 8]


def step_of(lengths: list[int], tokens: int) -> AscendMetadata:
    """A step of requests with ten tokens each in the cache, padded to so many tokens."""
    lens = torch.tensor(lengths)
    return AscendMetadata(
        phase=Phase.MIXED,
        num_tokens=tokens,
        query_lens=lens,
        seq_lens_host=torch.where(lens > 0, lens + 10, 0),
        seq_lens=torch.empty(0),
        block_table=torch.empty(0),
        slot_mapping=torch.empty(0),
        causal=True,
    )
