"""The sizes of published models, and the arithmetic that decides whether they fit."""

from __future__ import annotations

import pytest

from ascend_cli.registry.cards import cards, find_model
from ascend_facts.chips import find
from ascend_facts.memory_plan import (
    MemoryRequest,
    explain,
    plan_memory,
    refusal,
    smallest_that_fits,
    tensor_parallel_sizes,
    weight_bytes,
)
from ascend_facts.model_shape import UnreadableConfig, read_model_shape
from ascend_facts.quantized_format import Quantization, held_format

from .conftest import QWEN3_32B

DUO_CHIP_BYTES = find("310P3").usable_memory_bytes(0)


@pytest.mark.parametrize("name", list(cards()))
def test_parameters_of_cards_are_those_that_the_authors_state(name: str) -> None:
    """To 7 %: releases round (Qwen3.5-0.8B counts 0.75 without its vision tower). test_published_models is exact."""
    card, shape = cards()[name], find_model(name).shape
    assert shape.parameters / 1e9 == pytest.approx(card["parameters_b"], rel=0.07)
    if "active_parameters_b" in card:
        assert shape.parameters_per_token / 1e9 == pytest.approx(card["active_parameters_b"], rel=0.12)


@pytest.mark.parametrize(
    ("name", "bytes_a_token"),
    [
        ("qwen3-0.6b", 2 * 28 * 8 * 128 * 2),
        ("qwen3-32b", 262_144),
        ("deepseek-v3", 61 * (512 + 64) * 2),  # the latent and the rotary part, not heads
        ("qwen3.5-27b", 2 * 16 * 4 * 256 * 2),  # one layer in four has a cache
    ],
)
def test_cache_of_a_token(name: str, bytes_a_token: int) -> None:
    assert find_model(name).shape.cache_values_per_token(1) * 2 == bytes_a_token


def test_cache_heads_are_copied_beyond_their_number() -> None:
    shape = find_model("qwen3-235b-a22b").shape  # 4 key-value heads
    values = [shape.cache_values_per_token(ranks) for ranks in (1, 2, 4, 8)]
    assert values[0] == 2 * values[1] == 4 * values[2] == 4 * values[3]


def test_mla_cache_is_not_divided() -> None:
    shape = find_model("deepseek-v3").shape
    assert shape.cache_values_per_token(16) == shape.cache_values_per_token(1)


def test_linear_attention_keeps_a_state_per_sequence() -> None:
    shape = find_model("qwen3.5-27b").shape
    matrix, window = 48 * 128 * 128, (2 * 16 * 128 + 48 * 128) * 3
    assert shape.state_values_per_sequence == 48 * (matrix + window)


def test_heads_decide_the_sizes() -> None:
    assert tensor_parallel_sizes(find_model("smollm2").shape, 8) == [1, 3]  # 9 heads, 3 key-value heads
    assert tensor_parallel_sizes(find_model("qwen3-32b").shape, 8) == [1, 2, 4, 8]


def test_qwen3_32b_does_not_fit_one_chip() -> None:
    """The published out-of-memory error: Qwen3-32B in fp16 on one 43.24 GiB chip; two chips hold it."""
    shape = read_model_shape(QWEN3_32B)
    plan = plan_memory(shape, MemoryRequest(1, DUO_CHIP_BYTES))
    assert not plan.fits
    text = refusal("qwen3-32b", shape, plan, "310P3")
    for part in ("61.0 GiB", "43.2 GiB", "--tensor-parallel-size 2"):
        assert part in text
    smallest = smallest_that_fits(shape, MemoryRequest(1, DUO_CHIP_BYTES))
    assert smallest is not None
    assert smallest.request.tensor_parallel_size == 2


def test_the_lines_of_the_explanation_add_up() -> None:
    plan = plan_memory(find_model("qwen3-8b").shape, MemoryRequest(1, DUO_CHIP_BYTES))
    lines = explain(plan)
    assert lines[0][1] == DUO_CHIP_BYTES
    assert lines[-1][1] == sum(size for _, size, _ in lines[1:-1]) == plan.cache_bytes


def test_quantized_weights_keep_embedding_and_head() -> None:
    shape = find_model("qwen3-8b").shape
    kept = 2 * 151936 * 4096 * 2
    plain, small = (weight_bytes(shape, MemoryRequest(1, DUO_CHIP_BYTES, kind)) for kind in ("fp16", "w8a8"))
    assert small == pytest.approx(kept + (plain - kept) / 2, rel=1e-3)


def test_four_bit_weights_take_what_the_chip_s_products_read() -> None:
    duo, a2 = find("310P3"), find("910B3")
    awq = Quantization("awq", 4)
    assert [held_format(awq, chip) for chip in (duo, a2)] == ["w8a8", "w4a16"]
    assert [held_format(awq, chip, has_experts=True) for chip in (duo, a2)] == ["fp16", "w4a16"]


def test_concurrency_and_context_obey_cache_and_model() -> None:
    plan = plan_memory(find_model("qwen3-32b").shape, MemoryRequest(2, DUO_CHIP_BYTES))
    assert plan.max_context <= min(plan.cache_tokens, 40960)
    assert plan.concurrency(plan.cache_tokens) == 1
    assert plan.concurrency(plan.cache_tokens // 4) == 4


def test_a_cache_surely_fits_only_far_from_the_limit() -> None:
    plan = plan_memory(find_model("qwen3-0.6b").shape, MemoryRequest(1, DUO_CHIP_BYTES))
    assert plan.fits_with_margin(1 << 30, plan.weights_bytes)
    assert plan.fits and not plan.fits_with_margin(plan.cache_bytes, plan.weights_bytes)


def test_a_cache_surely_fits_beside_the_weights_that_were_measured() -> None:
    """Qwen3-32B as W8A8 whose down_proj is FLOAT: 32.3 GiB planned, 40.1 measured, of 39.8 that may be used."""
    shape = read_model_shape(QWEN3_32B)
    plan = plan_memory(shape, MemoryRequest(1, DUO_CHIP_BYTES, "w8a8", has_graphs=False, sequences=16))
    assert plan.fits_with_margin(2 << 30, plan.weights_bytes)
    assert not plan.fits_with_margin(2 << 30, int(40.1 * (1 << 30)))


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_size_is_named(field: str) -> None:
    config = {name: value for name, value in QWEN3_32B.items() if name != field}
    with pytest.raises(UnreadableConfig, match=field):
        read_model_shape(config)
