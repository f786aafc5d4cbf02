"""The arithmetic on a model of round figures, worked out by hand line by line."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.plan.planner import (
    Candidate,
    PlanRequest,
    Workload,
    checkpoint_format,
    make_plan,
    place,
    weight_formats,
)
from ascend_cli.registry.cards import Model
from ascend_facts import chips
from ascend_facts.attention_shape import (
    CacheLayers,
    Heads,
    attention_parameters,
    cache_layers,
    heads_of,
    indexer_parameters,
)
from ascend_facts.chips import ChipTableError, Link, UnknownChip, UnsupportedHeadSize, by_soc_id, find, load
from ascend_facts.config_fields import Fields, UnreadableConfig, language_section
from ascend_facts.families import UNKNOWN, Family
from ascend_facts.feed_forward_shape import dense_width, expert_layers, feed_forward
from ascend_facts.memory_plan import (
    GRAPH_BYTES,
    RUNTIME_BYTES,
    MemoryRequest,
    explain,
    plan_memory,
    refusal,
    request_on,
    smallest_that_fits,
    tensor_parallel_sizes,
    weight_bytes,
)
from ascend_facts.model_shape import ModelShape, Weights, read_model_shape
from ascend_facts.quantized_format import Quantization, bytes_of_weight, read_quantization
from ascend_facts.roofline import Placement
from ascend_facts.state_shape import mixers

MILLION, GIB = 1_000_000, 1 << 30
DUO, A2, A3, LARGE = find("310P3"), find("910B3"), find("910_9391"), find("950DT")
# 10 layers of 8 heads of 100 values over 4 key-value heads; a billion parameters in round parts.
SHAPE = ModelShape(
    architecture="RoundForCausalLM",
    model_type="round",
    dtype="float16",
    quantization=None,
    layers=10,
    attention_layers=10,
    hidden_size=1000,
    heads=8,
    kv_heads=4,
    head_dim=100,
    intermediate_size=3000,
    vocab_size=20_000,
    max_context=10_000,
    weights=(
        Weights("embedding", 20 * MILLION, 0, True, False),
        Weights("attention", 100 * MILLION, 100 * MILLION, True, True),
        Weights("mlp", 800 * MILLION, 800 * MILLION, True, True),
        Weights("norms", 2 * MILLION, 2 * MILLION, False, False),
        Weights("lm_head", 20 * MILLION, 20 * MILLION, True, False),
    ),
    caches=(CacheLayers(10, 4, 200),),
)
EXPERTS = replace(
    SHAPE,
    weights=(*SHAPE.weights, Weights("experts", 1600 * MILLION, 200 * MILLION, True, True, 16, 2)),
)
HYBRID = replace(
    SHAPE, attention_layers=5, caches=(CacheLayers(5, 4, 200),), recurrent_layers=5, window_values=100,
    matrix_values=1000, state_dtype="float32",
)  # fmt: skip
WINDOWED = replace(SHAPE, caches=(CacheLayers(4, 4, 200), CacheLayers(6, 4, 200, window=1000)))


def request(ranks: int = 1, **changes: Any) -> MemoryRequest:
    return MemoryRequest(ranks, 10 * GIB, **changes)


# ---------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("changes", "size_bytes"),
    [
        ({}, 2 * 942 * MILLION),
        ({"weight_format": "fp32"}, 4 * 942 * MILLION),
        # Matrices rounded to two bytes, the head's too; the table and the norms in four.
        ({"weight_format": "fp16+fp32"}, 2 * 920 * MILLION + 4 * 22 * MILLION),
        ({"weight_format": "w8a8"}, 900 * MILLION + 2 * 42 * MILLION),
        ({"weight_format": "fp8"}, 900 * MILLION + 2 * 42 * MILLION),
        # Half a byte, and 2.5 bytes of scale and zero for each group of 128.
        ({"weight_format": "w4a16"}, 900 * MILLION * (0.5 + 2.5 / 128) + 2 * 42 * MILLION),
        # Two stages: five layers each, and the larger of table and head beside them.
        ({"pipeline_parallel_size": 2}, 2 * (451 + 20) * MILLION),
        # Three stages of ten layers: four in the widest.
        ({"pipeline_parallel_size": 3}, 2 * (902 * 0.4 + 20) * MILLION),
    ],
)
def test_weights(changes: dict[str, Any], size_bytes: float) -> None:
    assert weight_bytes(SHAPE, request(**changes)) == pytest.approx(size_bytes, abs=1)


def test_weights_of_ranks_are_divided_but_for_the_norms() -> None:
    assert weight_bytes(SHAPE, request(4)) == 2 * (940 * MILLION // 4 + 2 * MILLION)
    assert weight_bytes(EXPERTS, request(4)) == 2 * (2540 * MILLION // 4 + 2 * MILLION)
    assert weight_bytes(EXPERTS, request(4, expert_ranks=16)) == 2 * (235 + 2 + 100) * MILLION


def test_a_tied_head_is_copied_for_products_in_a_format_of_their_own() -> None:
    tied = replace(SHAPE, weights=(*SHAPE.weights[:4], Weights("lm_head", 0, 20 * MILLION, True, False)))
    plain = weight_bytes(tied, request(2))
    assert plain == 2 * (920 * MILLION // 2 + 2 * MILLION)
    assert weight_bytes(tied, request(2, copies_tied_head=True)) == plain + 2 * 20_000 * 1000 // 2
    assert weight_bytes(SHAPE, request(2, copies_tied_head=True)) == weight_bytes(SHAPE, request(2))


def test_bytes_of_a_weight() -> None:
    assert [bytes_of_weight(name) for name in ("fp32", "fp16", "w8a8", "fp8")] == [4, 2, 1, 1]
    assert bytes_of_weight("w4a16", 32) == 0.5 + 2.5 / 32


# ----------------------------------------------------------------------------------------------------- memory


def test_every_line_of_a_plan() -> None:
    plan = plan_memory(SHAPE, request(2, memory_fraction=0.5, batched_tokens=100, sequences=10))
    assert plan.budget_bytes == 5 * GIB
    assert plan.weights_bytes == 2 * 472 * MILLION
    # 8 hidden-sized tensors and 3 of half the wide ones, two bytes each; logits in two bytes and in four.
    assert plan.activation_bytes == 100 * (8 * 1000 + 3 * 3000 // 2) * 2 + 10 * 20_000 * 6
    assert plan.graph_bytes == 300 * 2**20
    assert plan.runtime_bytes == (512 + 400) * 2**20
    used = plan.weights_bytes + plan.activation_bytes + plan.graph_bytes + plan.runtime_bytes
    assert plan.cache_bytes == 5 * GIB - used
    assert plan.cache_bytes_per_token == 10 * 2 * 200 * 2  # ten layers, two of the four heads
    assert plan.state_bytes_per_sequence == 0
    assert plan.model_max_context == 10_000


def test_eager_engines_and_single_chips_keep_less() -> None:
    alone = plan_memory(SHAPE, request(has_graphs=False))
    assert (alone.graph_bytes, alone.runtime_bytes) == (0, RUNTIME_BYTES)
    staged = plan_memory(SHAPE, request(pipeline_parallel_size=2))
    assert (staged.graph_bytes, staged.runtime_bytes) == (GRAPH_BYTES, RUNTIME_BYTES + (400 << 20))
    assert staged.cache_bytes_per_token == 10 * 4 * 200 * 2 // 2


def test_float32_activations_are_twice_as_wide() -> None:
    plan = plan_memory(SHAPE, request(weight_format="fp32", batched_tokens=100, sequences=10))
    assert plan.activation_bytes == 100 * (8 * 1000 + 3 * 3000) * 4 + 10 * 20_000 * 8


def test_a_request_takes_whole_blocks() -> None:
    plan = plan_memory(SHAPE, request(block_size=64))
    assert plan.bytes_of_request(64) == 64 * 16_000
    assert plan.bytes_of_request(65) == 128 * 16_000
    assert plan.concurrency(65) == min(256, plan.cache_bytes // (128 * 16_000))


def test_states_are_counted_in_their_own_dtype_and_divided() -> None:
    plan = plan_memory(HYBRID, request(2))
    assert plan.state_bytes_per_sequence == 5 * (100 * 2 + 1000 * 4) // 2
    assert plan.bytes_of_request(1) == 128 * 5 * 2 * 200 * 2 + 10_500
    assert replace(HYBRID, state_dtype="").state_bytes_per_sequence("float16") == 5 * 1100 * 2


def test_hybrids_share_the_cache_where_states_lie_apart() -> None:
    whole, half = (plan_memory(HYBRID, request(separates_states=apart)) for apart in (False, True))
    assert (whole.cache_share, half.cache_share) == (1.0, 0.5)
    assert whole.cache_bytes == half.cache_bytes
    assert half.usable_cache_bytes == whole.cache_bytes // 2
    assert half.concurrency(10_000) * 2 in (whole.concurrency(10_000), whole.concurrency(10_000) - 1)
    assert plan_memory(SHAPE, request(separates_states=True)).cache_share == 1.0
    one = replace(HYBRID, recurrent_layers=1)
    assert plan_memory(one, request(separates_states=True)).cache_share == 0.5


def test_a_windowed_layer_keeps_the_window_the_step_and_a_block() -> None:
    plan = plan_memory(WINDOWED, request(batched_tokens=100, block_size=10))
    assert plan.windowed == ((1000, 6 * 4 * 200 * 2),)
    assert plan.cache_bytes_per_token == 4 * 4 * 200 * 2
    # 999 + 100 tokens are 110 blocks of ten, and one more.
    assert plan.bytes_of_request(5000) == 5000 * 6400 + 1110 * 9600
    assert plan.bytes_of_request(10) == 10 * 6400 + 20 * 9600
    # 999 + 102 tokens begin the 111th block.
    longer = plan_memory(WINDOWED, request(batched_tokens=102, block_size=10))
    assert longer.bytes_of_request(5000) == 5000 * 6400 + 1120 * 9600


def test_the_cache_can_be_limited() -> None:
    plan = plan_memory(SHAPE, request(cache_limit_bytes=16_000 * 128 * 3 + 5))
    assert (plan.cache_tokens, plan.max_context, plan.fits) == (384, 384, True)
    assert plan_memory(SHAPE, request(cache_limit_bytes=16_000 * 128 - 1)).fits is False
    assert plan_memory(SHAPE, request(cache_limit_bytes=1 << 60)).usable_cache_bytes == plan.cache_bytes


def test_what_is_missing_is_negative() -> None:
    plan = plan_memory(SHAPE, MemoryRequest(1, 1 << 30))
    assert plan.cache_bytes < 0
    assert (plan.cache_tokens, plan.max_context, plan.concurrency(1), plan.fits) == (0, 0, 0, False)
    assert plan.usable_cache_bytes == plan.cache_bytes


def test_a_margin_is_twice_the_estimates() -> None:
    plan = plan_memory(SHAPE, request())
    estimated = plan.activation_bytes + plan.graph_bytes + plan.runtime_bytes
    room = plan.budget_bytes - plan.weights_bytes - 2 * estimated
    assert plan.fits_with_margin(room, 0)
    assert not plan.fits_with_margin(room + 1, 0)
    assert plan.fits_with_margin(room - 7, plan.weights_bytes + 7)
    assert not plan.fits_with_margin(room - 7, plan.weights_bytes + 8)


def test_lines_of_the_explanation() -> None:
    lines = {name: (size, text) for name, size, text in explain(plan_memory(HYBRID, request(separates_states=True)))}
    assert lines["chip memory"][0] == 10 * GIB
    assert lines["budget"] == (int(9.2 * GIB), "x 0.92 (--gpu-memory-utilization)")
    assert lines["weights"] == (-1884 * MILLION, "fp16, over 1 chip")
    assert lines["activations"][1] == "2,048 tokens in a step (estimate)"
    assert lines["graphs"] == (-(300 << 20), "captured decode graphs (estimate)")
    assert lines["runtime"] == (-(512 << 20), "context (estimate)")
    assert lines["left for the cache"][1].startswith("8,000 bytes a token, 21,000 a sequence, 50% of it")
    several = {name: text for name, _, text in explain(plan_memory(WINDOWED, request(2, has_graphs=False)))}
    assert several["weights"] == "fp16, over 2 chips"
    assert several["graphs"] == "eager"
    assert several["runtime"] == "context and HCCL buffers (estimate)"
    assert several["left for the cache"] == "3,200 bytes a token, 4,800 a token of the last 1,000"
    held = explain(plan_memory(SHAPE, request(cache_limit_bytes=1 << 30)))[-1][2]
    assert held == "16,000 bytes a token, held to 1.0 GiB"


def test_a_refusal_names_the_figures_and_the_remedy() -> None:
    small = MemoryRequest(1, 2 * GIB, batched_tokens=100, sequences=10, has_graphs=False)
    text = refusal("round", SHAPE, plan_memory(SHAPE, small), "a chip", chips=8)
    assert text.startswith("round does not fit a chip at tensor-parallel size 1: a chip would need 2.3 GiB (1.8 GiB of")
    assert "fp16 weights, 0.0 GiB of activations, 0.5 GiB of graphs and runtime) of the 1.8 GiB it may use" in text
    assert "(2.0 GiB x 0.92). Use --tensor-parallel-size 2 (0.9 GiB of weights, cache for 8,960 tokens)." in text
    tiny = replace(small, chip_bytes=GIB // 4)
    assert refusal("round", SHAPE, plan_memory(SHAPE, tiny), "a chip", chips=8).endswith(
        "No tensor-parallel size up to 8 makes it fit."
    )


def test_sizes_divide_the_heads() -> None:
    assert tensor_parallel_sizes(SHAPE, 9) == [1, 2, 4, 8]  # eight heads; the four key-value heads are copied
    assert tensor_parallel_sizes(replace(SHAPE, heads=6, kv_heads=2), 9) == [1, 2, 6]
    latent = replace(SHAPE, kv_heads=3, caches=(CacheLayers(10, 1, 576, is_latent=True),))
    assert tensor_parallel_sizes(latent, 9) == [1, 2, 4, 8]
    found = smallest_that_fits(SHAPE, MemoryRequest(1, 2 * GIB), chips=8)
    assert found is not None and found.request.tensor_parallel_size == 4
    assert smallest_that_fits(SHAPE, MemoryRequest(1, 2 * GIB), chips=3) is None


@pytest.mark.parametrize(
    ("chip", "tokens", "sequences", "copies", "apart"),
    [(DUO, 512, 256, True, True), (A2, 2048, 256, False, False), (LARGE, 8192, 1024, False, False)],
    ids=["310P3", "910B3", "950DT"],
)
def test_what_a_server_takes_by_itself(
    chip: chips.ChipSpec, tokens: int, sequences: int, copies: bool, apart: bool
) -> None:
    made = request_on(chip)
    assert (made.batched_tokens, made.sequences) == (tokens, sequences)
    assert (made.copies_tied_head, made.separates_states) == (copies, apart)
    assert (made.block_size, made.has_graphs, made.memory_fraction) == (128, True, 0.92)
    assert made.chip_bytes == chip.usable_memory_bytes(0)


def test_what_a_user_gives_comes_first() -> None:
    made = request_on(
        DUO, 4, "w8a8", chip_bytes=200 << 30, memory_fraction=0.5, batched_tokens=7, sequences=9, block_size=64,
        has_graphs=False, pipeline_parallel_size=2, expert_ranks=8, cache_limit_bytes=5,
    )  # fmt: skip
    assert made == MemoryRequest(
        4, 200 << 30, "w8a8", 0.5, 7, 9, "float16", 64, False, 2, 8, copies_tied_head=True, separates_states=True,
        cache_limit_bytes=5,
    )  # fmt: skip
    assert request_on(A2, chip_bytes=160 << 30).batched_tokens == 16384
    assert request_on(A2, chip_bytes=(70 << 30) - 1).batched_tokens == 2048


def test_the_smaller_chip_of_a_card_decides() -> None:
    assert request_on(DUO, 1).chip_bytes == 44278 << 20
    assert request_on(DUO, 2).chip_bytes == 43693 << 20
    assert request_on(DUO, 1, pipeline_parallel_size=2).chip_bytes == 43693 << 20


# ------------------------------------------------------------------------------------------------------- time

# A chip of round figures: 100 GB/s, 10 Tflop/s, 20 Tint8/s, 10 us a launch; kernels reach 0.8 and 0.5 of the peaks.
ROUND = replace(
    A2, bandwidth_gbps=100.0, fp16_tflops=10.0, int8_tops=20.0, launch_us=10.0, chips_per_card=2, chips_per_server=4,
    bandwidth_share=0.8, cube_share=0.5,
    card_link=Link("card", "", 10.0, 100.0), node_link=Link("node", "", 5.0, 200.0),
    server_link=Link("net", "", 1.0, 400.0),
)  # fmt: skip


def test_bytes_and_operations_of_a_step() -> None:
    one = Placement(SHAPE, ROUND, 1)
    # All but the embedding table, 922 million values, and 16,000 bytes of cache for each of 500 tokens.
    assert one.step_bytes(1, 500, 1) == 2 * 922 * MILLION + 500 * 16_000
    assert one.step_bytes(4, 2000, 4) == 2 * 922 * MILLION + 2000 * 16_000
    two = Placement(SHAPE, ROUND, 2)
    assert two.step_bytes(1, 500, 1) == 2 * (460 + 2) * MILLION + 500 * 8_000
    # Two operations a parameter; the head for one token of three; a pair is 4 * 10 layers * 8 heads * 100.
    assert one.step_operations(3, 1, 7) == 2 * (3 * 902 + 20) * MILLION + 7 * 32_000
    assert two.step_operations(3, 1, 7) == one.step_operations(3, 1, 7) / 2


def test_bytes_of_small_weights_and_tied_heads() -> None:
    assert Placement(SHAPE, ROUND, 1, "w8a8").step_bytes(1, 0, 1) == 900 * MILLION + 2 * 22 * MILLION
    tied = replace(SHAPE, weights=(*SHAPE.weights[:4], Weights("lm_head", 0, 20 * MILLION, True, False)))
    assert Placement(tied, ROUND, 1).step_bytes(1, 0, 1) == 2 * 922 * MILLION  # the table is read as the head


def test_experts_that_a_step_reaches() -> None:
    one = Placement(EXPERTS, ROUND, 1)
    assert one.step_bytes(1, 0, 1) == pytest.approx(2 * (922 + 1600 / 8) * MILLION)
    assert one.step_bytes(2, 0, 1) == pytest.approx(2 * (922 + 1600 * (1 - (7 / 8) ** 2)) * MILLION)


def test_states_are_read_and_written() -> None:
    assert Placement(HYBRID, ROUND, 2).step_bytes(3, 0, 3) == 2 * 462 * MILLION + 2 * 3 * 21_000 / 2


def test_windows_bound_what_is_attended() -> None:
    assert WINDOWED.attended_values(1, 3000) == 4 * 4 * 200 * 3000 + 6 * 4 * 200 * 1000
    assert WINDOWED.attended_values(2, 500) == 10 * 2 * 200 * 500


def test_a_latent_is_key_and_value_of_every_head() -> None:
    latent = replace(SHAPE, caches=(CacheLayers(10, 1, 576, is_latent=True),))
    assert Placement(latent, ROUND, 1).step_operations(0, 0, 3) == 3 * 2 * 8 * 10 * 576 * 2


def test_floors() -> None:
    one = Placement(SHAPE, ROUND, 1)
    assert one.decode_floor_ms(1, 0) == pytest.approx(2 * 922 * MILLION / 100e9 * 1e3)  # bound by memory
    # 1,000 sequences: 2 * 922 million operations each at 10 Tflop/s, above what they read.
    assert one.decode_floor_ms(1000, 0) == pytest.approx(2 * 922 * MILLION * 1000 / 10e12 * 1e3)
    assert one.prefill_floor_ms(1000) == pytest.approx((2 * (902_000 + 20) * MILLION + 500_000 * 32_000) / 10e12 * 1e3)
    assert one.prefill_floor_ms(1) == pytest.approx(2 * 922 * MILLION / 100e9 * 1e3)


def test_peaks_follow_the_format() -> None:
    eight = replace(ROUND, fp8_tflops=40.0)
    assert Placement(SHAPE, ROUND, 1).peak_operations_a_second == 10e12
    assert Placement(SHAPE, ROUND, 1, "w8a8").peak_operations_a_second == 20e12
    assert Placement(SHAPE, ROUND, 1, "fp8").peak_operations_a_second == 10e12
    assert Placement(SHAPE, eight, 1, "fp8").peak_operations_a_second == 40e12


@pytest.mark.parametrize(("ranks", "gbps", "latency_ms"), [(2, 10, 0.1), (4, 5, 0.2), (8, 1, 0.4)])
def test_collectives_go_by_the_slowest_link(ranks: int, gbps: float, latency_ms: float) -> None:
    """Two all-reduces a layer of ten on rings: 2 (n - 1) steps, 2 (n - 1) / n of a message of 2,000 bytes a token.

    Each rank reduces (n - 1) / n of it: three accesses a byte at 0.8 of 100 GB/s.
    """
    part_ms = (ranks - 1) / ranks * 3 * 2000 * 1e3
    each_ms = 2 * (ranks - 1) * latency_ms + 2 * part_ms / (gbps * 1e9) + 3 * part_ms / 80e9
    assert Placement(SHAPE, ROUND, ranks).collectives_ms(3) == pytest.approx(20 * each_ms)
    assert Placement(SHAPE, ROUND, 1).collectives_ms(3) == 0.0


def test_links_by_distance() -> None:
    assert [ROUND.link_of(ranks).kind for ranks in (1, 2, 3, 4, 5, 64)] == [
        "card", "card", "node", "node", "net", "net",
    ]  # fmt: skip
    assert DUO.link_of(64) == DUO.node_link  # HCCL joins no servers there
    assert A2.link_of(9).kind.startswith("RoCE")


def test_modeled_times() -> None:
    one = Placement(SHAPE, ROUND, 1)
    assert one.launches_ms() == pytest.approx((12 * 10 + 40) * 10 / 1e3)
    reading_ms = 2 * 922 * MILLION / 100e9 * 1e3
    assert one.modeled_decode_ms(1, 0) == pytest.approx(reading_ms / 0.8 + 1.6)
    computing_ms = 2 * 922 * MILLION * 1000 / 10e12 * 1e3
    assert one.modeled_decode_ms(1000, 0) == pytest.approx(computing_ms / 0.5 + 1.6)
    assert one.modeled_eager_decode_ms(1, 0) == pytest.approx(reading_ms / 0.8 + 1.6)
    assert replace(one, shape=replace(SHAPE, layers=100)).modeled_eager_decode_ms(1, 0) == 200.0
    assert one.modeled_prefill_ms(1000) == pytest.approx(2 * one.prefill_floor_ms(1000) + 1.6)
    assert one.modeled_prefill_ms(1) == pytest.approx(reading_ms / 0.8 + 1.6)
    assert Placement(SHAPE, ROUND, 2).modeled_prefill_ms(1000) == pytest.approx(
        one.prefill_floor_ms(1000) + 1.6 + Placement(SHAPE, ROUND, 2).collectives_ms(1000)
    )


# ---------------------------------------------------------------------------------------------------- planner

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 128256,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip


def ask(count: int = 4, chip: chips.ChipSpec = DUO, **changes: Any) -> PlanRequest:
    base = PlanRequest(Model("llama", LLAMA_8B, "card", hub_id="meta/llama"), chip, count, Workload(), "fp16")
    return replace(base, **changes)


def sized(question: PlanRequest, size: int) -> Candidate:
    return next(choice for choice in make_plan(question).choices if choice.tensor_parallel_size == size)


def test_tokens_a_second_of_all_chips() -> None:
    question = ask(4, workload=Workload(200, 100, 8))
    two, shape = sized(question, 2), question.model.shape
    placement = Placement(shape, DUO, 2)
    assert two.replicas == 2
    assert two.modeled_tokens_per_s == pytest.approx(8e3 / placement.modeled_decode_ms(4, 300))
    most = plan_memory(shape, request_on(DUO, 2)).concurrency(300)
    assert two.modeled_saturated_tokens_per_s == pytest.approx(2 * most * 1e3 / placement.modeled_decode_ms(most, 300))
    assert two.decode_floor_ms == placement.decode_floor_ms(1, 300)
    assert two.decode_floor_loaded_ms == placement.decode_floor_ms(4, 300)
    assert two.modeled_decode_loaded_ms == placement.modeled_decode_ms(4, 300)
    assert two.prefill_floor_ms == placement.prefill_floor_ms(200)
    assert two.modeled_prefill_ms == placement.modeled_prefill_ms(200)
    assert two.modeled_eager_decode_ms == placement.modeled_eager_decode_ms(1, 300)


def test_sizes_are_powers_of_two_and_all_chips() -> None:
    assert [choice.tensor_parallel_size for choice in make_plan(ask(8)).choices] == [1, 2, 4, 8]
    assert [choice.tensor_parallel_size for choice in make_plan(ask(7)).choices] == [1, 2, 4]
    halved = make_plan(ask(8, pipeline_parallel_size=2, data_parallel_size=2))
    assert [choice.tensor_parallel_size for choice in halved.choices] == [1, 2]
    assert [choice.tensor_parallel_size for choice in make_plan(ask(4, tensor_parallel_size=16)).choices][-1] == 16


def test_a_doubling_must_be_worth_its_chips() -> None:
    plan = make_plan(ask(4))
    times = {choice.tensor_parallel_size: choice.modeled_decode_ms for choice in plan.choices}
    assert times[1] / times[2] >= 1.5
    assert plan.best == (4 if times[2] / times[4] >= 1.5 else 2)
    assert plan.smallest == 1


def test_several_servers_are_named_and_not_started_from_here() -> None:
    plan = make_plan(ask(16, A2, tensor_parallel_size=16))
    assert plan.best_choice is not None and plan.best_choice.servers == 2
    assert plan.serve is None
    assert any("2 servers of 8 chips through RoCE 200 GbE" in line for line in plan.advice)
    assert [choice.servers for choice in make_plan(ask(32, A2)).choices] == [1, 1, 1, 1, 2, 4]
    assert (make_plan(ask(32, A2)).best or 0) <= 8
    assert sized(ask(8, DUO), 8).servers == 1


def test_the_context_that_is_asked_for_must_fit() -> None:
    short = make_plan(ask(1, context=1000))
    assert short.serve == "ascend serve meta/llama -- --max-model-len 1000"
    long = make_plan(ask(1, memory_fraction=0.45, context=131_000))
    assert long.smallest is None
    assert long.best is None
    assert "a request of 131,000 tokens is over the" in long.advice[0]
    judged = make_plan(ask(1, memory_fraction=0.45, context=131_000, tensor_parallel_size=1))
    assert "a request of 131,000 tokens is over the" in judged.advice[0]


def test_flags_of_the_command() -> None:
    plan = make_plan(
        ask(8, A2, tensor_parallel_size=2, pipeline_parallel_size=2, data_parallel_size=2, memory_fraction=0.8)
    )
    assert plan.serve is not None
    assert plan.serve.split(" -- ")[1] == (
        "--tensor-parallel-size 2 --pipeline-parallel-size 2 --data-parallel-size 2 --gpu-memory-utilization 0.8 "
        "--max-model-len 131072"
    )
    assert plan.placement == ((0, 1, 2, 3, 4, 5, 6, 7),)


def test_the_format_follows_the_dtype_of_the_chip() -> None:
    gemma = read_model_shape({**LLAMA_8B, "model_type": "gemma2", "head_dim": 128})
    assert [checkpoint_format(gemma, chip) for chip in (DUO, A2)] == ["fp16+fp32", "fp16"]


def test_why_one_chip_is_too_small() -> None:
    plan = make_plan(ask(4, memory_fraction=0.3))
    assert plan.smallest == 2
    assert (
        plan.advice[0]
        == "llama in fp16 needs at least 2 310P3 chips: 15.0 GiB of weights, 13.0 GiB usable on one chip."
    )


def test_smaller_formats_are_named_with_what_they_gain() -> None:
    lines = make_plan(ask(4, memory_fraction=0.3)).advice
    assert "A w8a8 checkpoint fits at tensor-parallel size 1." in lines
    fits = make_plan(ask(1))
    floor, small = fits.choices[0].decode_floor_ms, fits.quantized[0].decode_floor_ms
    assert f"A w8a8 checkpoint lowers the decode floor from {floor:.1f} to {small:.1f} ms" in " ".join(fits.advice)


def test_places() -> None:
    assert place(DUO, 5, 2) == ((0, 1), (2, 3))
    assert place(DUO, 2, 4) == ()
    assert weight_formats(DUO) == ["fp16", "w8a8"]


# ------------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, 12),
        ({"first_k_dense_replace": 3}, 9),
        ({"moe_layer_start_index": 2}, 10),
        ({"moe_layer_start_index": 2, "moe_layer_end_index": 9}, 8),
        ({"mlp_only_layers": [0, 5, "x"]}, 10),
        ({"decoder_sparse_step": 2}, 6),
        ({"interleave_moe_layer_step": 3}, 4),
        ({"moe_layer_freq": 4}, 3),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, 5),
        ({"moe_layer_freq": [0, 1, 1]}, 2),
        ({"mlp_layer_types": ["dense"] * 3 + ["sparse"] * 9}, 9),
        ({"first_k_dense_replace": 99}, 0),
        ({"decoder_sparse_step": 1, "moe_layer_freq": 1}, 12),
    ],
)
def test_layers_with_experts(fields: dict[str, Any], layers: int) -> None:
    assert expert_layers(Fields(fields), 12) == layers


def test_more_layers_than_any_model_has_are_refused() -> None:
    assert expert_layers(Fields({}), 10_000) == 10_000
    with pytest.raises(UnreadableConfig, match="10001 layers"):
        expert_layers(Fields({}), 10_001)


MIXED = {
    "hidden_size": 10,
    "intermediate_size": 40,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 5,
}


@pytest.mark.parametrize(
    ("fields", "always", "routed", "router", "widest"),
    [
        # Two layers of eight experts of 3 * 10 * 5, a router of 8 * 10 each; a token meets two of width 5.
        ({}, 0, 2400, 160, 10),
        ({"model_type": "qwen3_moe"}, 0, 2400, 160, 10),
        ({"n_shared_experts": 2}, 2 * 3 * 10 * 10, 2400, 160, 20),
        ({"shared_expert_intermediate_size": 7}, 2 * 3 * 10 * 7, 2400, 160, 17),
        ({"shared_expert_intermediate_size": 7, "n_shared_experts": 2}, 2 * 3 * 10 * 14, 2400, 160, 24),
        # Qwen's shared expert has a gate of one output.
        ({"shared_expert_intermediate_size": 7, "model_type": "qwen2_moe"}, 2 * (210 + 10), 2400, 160, 17),
        ({"model_type": "llama4_text"}, 2 * 3 * 10 * 5, 2400, 160, 15),
        # A bias of the choice, one value an expert.
        ({"topk_method": "noaux_tc"}, 0, 2400, 176, 10),
        ({"model_type": "glm4_moe"}, 0, 2400, 176, 10),
        ({"model_type": "minimax_m2"}, 0, 2400, 176, 10),
        ({"model_type": "ernie4_5_moe"}, 0, 2400, 176, 10),
        ({"model_type": "nemotron_h"}, 0, 2400, 176, 10),
        # gpt-oss: biases of both projections of every expert, and of the router.
        ({"model_type": "gpt_oss"}, 0, 2400 + 2 * 8 * (2 * 5 + 10), 176, 10),
        # One layer is dense, 40 wide; then a token meets that at most.
        ({"first_k_dense_replace": 1}, 1200, 1200, 80, 40),
        ({"first_k_dense_replace": 1, "intermediate_size_mlp": 50}, 1500, 1200, 80, 50),
        ({"enable_moe_block": True}, 2400, 2400, 160, 40),
        # Experts in a space of 4: two projections between, of 10 * 4 each.
        ({"moe_latent_size": 4}, 2 * 2 * 40, 2 * 8 * 3 * 4 * 5, 160, 10),
    ],
)
def test_experts_by_hand(fields: dict[str, Any], always: int, routed: int, router: int, widest: int) -> None:
    found = feed_forward(Fields({**MIXED, **fields}), Family(), 2)
    assert (found.always, found.routed, found.router, found.widest) == (always, routed, router, widest)
    assert (found.experts, found.experts_per_token) == (8, 2)


def test_dense_layers_by_hand() -> None:
    sizes = {"hidden_size": 10, "intermediate_size": 40}
    assert feed_forward(Fields(sizes), Family(), 3).always == 3 * 3 * 400
    assert feed_forward(Fields(sizes), Family(matrices=2), 3).always == 3 * 2 * 400
    assert feed_forward(Fields(sizes), Family(matrices=2, mlp_bias=True), 1).always == 800 + 40 + 10
    assert feed_forward(Fields(sizes), Family(mlp_bias=True), 1).always == 1200 + 80 + 10
    assert feed_forward(Fields({**sizes, "mlp_bias": True}), Family(), 1).always == 1200 + 80 + 10
    assert feed_forward(Fields({**sizes, "use_bias": True}), Family(), 1).always == 1200
    assert feed_forward(Fields({**sizes, "use_bias": True}), Family(matrices=2), 1).always == 850
    assert feed_forward(Fields(sizes), Family(), 1).widest == 40
    assert dense_width(Fields({"hidden_size": 10, "model_type": "gpt2", "n_inner": 7})) == 7
    for kind in ("gpt2", "gptj", "gpt_neo", "gpt_bigcode", "bloom", "falcon", "mpt"):
        assert dense_width(Fields({"hidden_size": 10, "model_type": kind})) == 40
    assert dense_width(Fields({"hidden_size": 10, "model_type": "mpt", "expansion_ratio": 3})) == 30
    with pytest.raises(UnreadableConfig, match="intermediate_size"):
        dense_width(Fields({"hidden_size": 10, "model_type": "llama"}))


def test_attention_by_hand() -> None:
    sizes = {"hidden_size": 10, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 3}
    heads = heads_of(Fields(sizes))
    assert (heads.queries, heads.key_values, heads.width) == (4, 2, 3)
    plain = 10 * (12 + 6 + 6) + 12 * 10

    def count(family: Family = UNKNOWN, **fields: Any) -> int:
        return attention_parameters(Fields({**sizes, **fields}), family, heads)

    assert count() == plain
    assert count(attn_output_gate=True) == plain + 10 * 12
    assert count(Family(bias="qkv")) == plain + 12 + 12
    assert count(Family(bias="qkvo")) == count(attention_bias=True) == count(use_bias=True) == plain + 24 + 10
    assert count(Family(bias="qkv"), attention_bias=True) == plain + 24
    assert count(Family(bias="qkv"), attention_bias=False) == plain
    assert count(qkv_bias=True) == count(use_qkv_bias=True) == count(add_qkv_bias=True) == plain + 24
    assert count(Family(bias="qkv", out_bias="o"), attention_bias=True, o=True) == plain + 34
    assert count(Family(bias="qkv", out_bias="o"), attention_bias=True, o=False) == plain + 24
    assert count(Family(qk_norm="head")) == plain + 6
    assert count(Family(qk_norm="width")) == plain + 12 + 6
    assert count(model_type="glm4_moe", use_qk_norm=True) == plain + 6
    assert count(model_type="hunyuan_v1_moe", use_qk_norm=True) == plain + 6
    assert count(model_type="llama", use_qk_norm=True) == plain
    assert count(model_type="gpt_oss") == plain + 4  # a sink a head
    latent = {"kv_lora_rank": 5, "qk_rope_head_dim": 2, "qk_nope_head_dim": 3, "v_head_dim": 4}
    key_value = 10 * (5 + 2) + 5 * 4 * (3 + 4) + 5 + 4 * 4 * 10
    assert count(**latent) == 10 * 4 * 5 + key_value
    assert count(**latent, q_lora_rank=6) == 10 * 6 + 6 * 4 * 5 + 6 + key_value
    grouped = {"o_lora_rank": 7, "q_lora_rank": 6, "o_groups": 2}
    assert count(**grouped) == (60 + 6 * 12 + 6) + (10 * 3 + 3) + (12 * 7 + 2 * 7 * 10)
    indexed = Fields({**sizes, "q_lora_rank": 6, "index_n_heads": 2, "index_head_dim": 5})
    assert indexer_parameters(indexed, 3) == 3 * (6 * 2 * 5 + 10 * 5 + 2 * 5 + 10 * 2)
    assert indexer_parameters(Fields(sizes), 3) == 0


@pytest.mark.parametrize(
    ("fields", "key_values"),
    [
        ({"num_key_value_heads": 2}, 2),
        ({}, 4),
        ({"multi_query": True}, 1),
        ({"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 2}, 2),
        ({"multi_query_attention": True, "multi_query_group_num": 2}, 2),
        ({"multi_query_attention": True}, 1),
        ({"model_type": "gpt_bigcode"}, 1),
        ({"model_type": "gpt_bigcode", "multi_query": False}, 4),
    ],
)
def test_key_value_heads_in_every_spelling(fields: dict[str, Any], key_values: int) -> None:
    heads = heads_of(Fields({"hidden_size": 12, "num_attention_heads": 4, **fields}))
    assert (heads.key_values, heads.width) == (key_values, 3)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, [(12, 0)]),
        ({"sliding_window": 100}, [(12, 100)]),
        ({"sliding_window": 100, "use_sliding_window": False}, [(12, 0)]),
        ({"sliding_window": 1000}, [(12, 0)]),  # as long as the context
        ({"sliding_window": 999}, [(12, 999)]),
        ({"sliding_window": 100, "sliding_window_pattern": 6}, [(2, 0), (10, 100)]),
        ({"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 8}, [(8, 0), (4, 100)]),
        ({"sliding_window": 100, "layer_types": ["full_attention", "sliding_attention"] * 6}, [(6, 0), (6, 100)]),
        ({"sliding_window": 100, "model_type": "gpt_oss"}, [(6, 0), (6, 100)]),
        ({"attention_chunk_size": 100, "model_type": "llama4_text"}, [(3, 0), (9, 100)]),
        ({"attention_chunk_size": 100, "model_type": "llama4_text", "no_rope_layer_interval": 6}, [(2, 0), (10, 100)]),
    ],
)
def test_layers_that_look_back_a_window(fields: dict[str, Any], kinds: list[tuple[int, int]]) -> None:
    found = cache_layers(Fields(fields), 12, Heads(4, 2, 3), 1000)
    assert [(layers.layers, layers.window) for layers in found] == kinds
    assert all((layers.kv_heads, layers.values, layers.is_latent) == (2, 6, False) for layers in found)


def test_caches_of_other_kinds() -> None:
    latent = cache_layers(Fields({"kv_lora_rank": 5, "qk_rope_head_dim": 2}), 12, Heads(4, 2, 3), 1000)
    assert latent == (CacheLayers(12, 1, 7, is_latent=True),)
    assert latent[0].values_per_token(8) == 84
    wide = {"sliding_window": 9, "layer_types": ["full_attention"] * 2, "global_head_dim": 8}
    assert cache_layers(Fields({**wide, "num_global_key_value_heads": 1}), 2, Heads(4, 2, 3), 1000) == (
        CacheLayers(2, 1, 16),
    )
    pressed = cache_layers(
        Fields({"compress_ratios": [0, 4, 4, 128, 99], "sliding_window": 9}), 4, Heads(4, 1, 512), 1000
    )
    assert pressed == (
        CacheLayers(4, 1, 512, 9, is_latent=True),
        CacheLayers(2, 1, 128, is_latent=True),
        CacheLayers(1, 1, 4, is_latent=True),
    )


@pytest.mark.parametrize(
    ("value", "size"), [(5, 5), (5.0, 5), ([7, 7], 7), (None, 0), (False, 0), (0, 0), (1 << 40, 1 << 40)]
)
def test_sizes_that_are_read(value: Any, size: int) -> None:
    assert Fields({"hidden_size": value}).optional_size("hidden_size") == size


@pytest.mark.parametrize("value", [True, -1, 5.5, "5", [1, 2], [], {}, float("nan"), float("inf"), (1 << 40) + 1, -0.5])
def test_sizes_that_are_refused(value: Any) -> None:
    with pytest.raises(UnreadableConfig, match=r"no usable 'hidden_size' \(.*\): a positive whole number is needed"):
        Fields({"hidden_size": value}).optional_size("hidden_size")


def test_other_kinds_are_refused_by_name() -> None:
    fields = Fields({"a": 1}, {"b": 2})
    for read, need in ((fields.flag, "true or false"), (fields.text, "a word"), (fields.items, "a list")):
        with pytest.raises(UnreadableConfig, match=f"no usable 'a' .*{need} is needed"):
            read("a")
    with pytest.raises(UnreadableConfig, match="an object is needed"):
        fields.section("a")
    with pytest.raises(UnreadableConfig, match=r"no usable 'c' \(None\)"):
        fields.size("c")
    assert fields.size("b") == 2
    assert (fields.flag("c"), fields.flag("c", default=True), fields.text("c", "x"), fields.items("c")) == (
        False, True, "x", (),
    )  # fmt: skip
    long = Fields({"a": "y" * 100})
    with pytest.raises(UnreadableConfig) as raised:
        long.size("a")
    assert "y" * 36 + "..." in str(raised.value) and "y" * 40 not in str(raised.value)


def test_sections_of_the_language_model() -> None:
    nested = {"a": 1, "thinker_config": {"b": 2, "text_config": {"a": 3, "b": None}}}
    merged = language_section(nested)
    assert (merged["a"], merged["b"]) == (3, 2)
    assert language_section({"text_config": {"a": 1}, "llm_config": {"a": 2}})["a"] == 1


def test_what_is_not_counted_is_refused() -> None:
    for extra, word in (
        ({"is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"encoder_layers": 2}, "an encoder and a decoder"),
        ({"state_size": 16}, "state_size"),
        ({"layer_types": ["mystery"] * 32}, "mystery"),
        ({"num_attention_heads": 5000}, "5000 heads"),
        ({"num_experts": 4, "num_experts_per_tok": 5}, "5 of 4 experts"),
        ({"layer_types": ["linear_attention"] * 33}, "33 recurrent layers of 32"),
    ):
        with pytest.raises(UnreadableConfig, match=word):
            read_model_shape({**LLAMA_8B, **extra})


def test_mixed_layers() -> None:
    sizes = {
        "hidden_size": 8, "linear_num_value_heads": 4, "linear_value_head_dim": 2, "linear_num_key_heads": 2,
        "linear_key_head_dim": 3, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    found = mixers(Fields({**sizes, "full_attention_interval": 4}), 10)
    assert (found.attention, found.recurrent, found.feed_forward) == (2, 8, 10)
    # Keys 6, values 8: q, k, v and the gate, decay and beta, output, convolution, decay's two vectors, norm.
    assert found.parameters == 8 * (12 + 16) + 8 * 8 + 8 * 8 + 20 * 4 + 8 + 2
    assert (found.window_values, found.matrix_values) == (20 * 3, 8 * 3)
    mamba = {
        "hidden_size": 16, "mamba_num_heads": 2, "mamba_head_dim": 4, "ssm_state_size": 3, "n_groups": 1,
        "conv_kernel": 4, "hybrid_override_pattern": "M*EM-",
    }  # fmt: skip
    second = mixers(Fields(mamba), 5)
    assert (second.attention, second.recurrent, second.feed_forward) == (1, 2, 2)
    # Inner 8, convolved 8 + 2 * 3: in, convolution of 4 with a bias, three vectors a head, norm, out.
    into = 16 * (8 + 14 + 2)
    assert second.parameters == into + 14 * 4 + 14 + 3 * 2 + 8 + 8 * 16
    assert mixers(Fields({**mamba, "use_conv_bias": False}), 5).parameters == second.parameters - 14
    assert (second.window_values, second.matrix_values) == (14 * 3, 8 * 3)
    kimi = {
        "hidden_size": 16,
        "linear_attn_config": {"kda_layers": [1, 2], "num_heads": 2, "head_dim": 4, "short_conv_kernel_size": 3},
    }
    delta = mixers(Fields(kimi), 3)
    assert (delta.attention, delta.recurrent) == (1, 2)
    # q, k, v, o of 16 x 8; three convolutions of 3; decay and gate of rank 4; beta; decay's vectors and the norm.
    assert delta.parameters == 4 * 16 * 8 + 3 * 8 * 3 + 2 * (16 * 4 + 4 * 8) + 16 * 2 + 2 + 8 + 4
    assert (delta.window_values, delta.matrix_values) == (3 * 8 * 2, 8 * 4)
    full = {**kimi["linear_attn_config"], "use_full_rank_gate": True}  # type: ignore[dict-item]
    assert mixers(Fields({**kimi, "linear_attn_config": full}), 3).parameters == (
        delta.parameters - (16 * 4 + 4 * 8) + 16 * 8
    )


# ------------------------------------------------------------------------------------------------------ chips


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("310P3", "310P3"),
        ("Ascend310P3", "310P3"),
        ("ascend 310p3", "310P3"),
        ("Atlas 300I Duo", "310P3"),
        ("HUAWEI Ascend910B4-1", "910B4"),
        ("Ascend950DT_9588", "950DT"),
        ("310P5", "310P3"),
        ("310P3vir04", "310P3"),
    ],
)
def test_names_of_chips(name: str, chip: str) -> None:
    assert find(name).name == chip


def test_unknown_chips_are_named_with_those_that_are_known() -> None:
    with pytest.raises(UnknownChip, match="'310B4': choose one of 310P3, 310P1"):
        find("310B4")
    with pytest.raises(UnknownChip, match="numbers the known chips 310P3 202"):
        by_soc_id(-1)
    assert by_soc_id(202).name == "310P3"


def test_facts_that_follow_from_the_table() -> None:
    assert [DUO.usable_memory_bytes(index) >> 20 for index in range(4)] == [44278, 43693, 44278, 43693]
    assert (DUO.has_bf16, A2.has_bf16, DUO.preferred_dtype, A2.preferred_dtype) == (False, True, "float16", "bfloat16")
    assert (DUO.rounds_float32_products, A2.rounds_float32_products) == (True, False)
    assert (DUO.has_full_hccl, A2.has_full_hccl, DUO.has_fp8, LARGE.has_fp8) == (False, True, False, True)
    assert [DUO.kv_block_size(width) for width in (64, 128, 129, 256)] == [128, 128, 64, 64]
    assert A2.kv_block_size(512) == 128
    with pytest.raises(UnsupportedHeadSize, match=r"no head size above 256; this model has 257"):
        DUO.kv_block_size(257)


# ---------------------------------------------------------------------------------------------- tables of data


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('soc_version = "Ascend310P3"\n', "", "chip 310P3: .*missing 1 required .*soc_version"),
        ("npu_arch = 2002", 'colour = "red"\nnpu_arch = 2002', "chip 310P3: unknown field colour"),
        ('family = "310p"', 'family = "311p"', "chip 310P3: family '311p' is not one of 310p, 910b"),
        ("npu_arch = 2002", "npu_arch = true", "chip 310P3: npu_arch is True, expected int"),
        ('soc_version = "Ascend310P3"', "soc_version = 3", "chip 310P3: soc_version is 3, expected str"),
    ],
)
def test_a_chip_table_that_does_not_fit_says_where(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = chips.TABLE.read_text(encoding="utf-8")
    assert old in text
    table = tmp_path / "table.toml"
    table.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ChipTableError, match=f"table.toml, {message}"):
        load(table)


def test_a_chip_s_own_figures_replace_its_family_s() -> None:
    loaded = {chip.name: chip for chip in load()}
    times = tomllib.loads(chips.CONSTANTS.read_text(encoding="utf-8"))["families"]
    assert list(loaded) == [chip.name for chip in chips.chips()]
    assert (loaded["310P3"].family, loaded["310P3"].product) == ("310p", "atlas_inference")
    assert loaded["310P3"].launch_us == times["310p"]["launch_us"] and isinstance(loaded["310P3"].launch_us, float)
    assert loaded["310P3"].card_link == Link("PCIe 4.0 x16", "PIX", 28.0, times["310p"]["step_us"])
    assert loaded["310P3"].server_link is None
    assert loaded["910B3"].server_link == Link("RoCE 200 GbE", "NET", 25.0, 30.0)
    assert loaded["310P3"].memory_mib == (44278, 43693)
    assert isinstance(loaded["310P3"].memory_mib, tuple)


@pytest.mark.parametrize(
    ("section", "stored"),
    [
        ({"quant_method": "gptq", "bits": 3}, Quantization("gptq", 3, kind="gptq of 3 bits")),
        ({"quant_method": "awq", "w_bit": 8}, Quantization("awq", 8, kind="awq of 8 bits")),
        ({"quant_method": "awq"}, Quantization("awq", 4, kind="awq of 4 bits")),
        ({"quant_method": "mxfp4"}, Quantization("mxfp4", 4, True, kind="mxfp4")),
        ({"quant_method": "fp8"}, Quantization("fp8", 8, True, 8, "fp8")),
        ({"quant_method": "fbgemm_fp8"}, Quantization("fp8", 8, True, 8, "fp8")),
        ({"quant_method": "modelopt"}, Quantization("modelopt", 8, True, 8, "fp8")),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Quantization("modelopt", 4, True, 8, "NVFP4")),
        ({"quant_method": "bitsandbytes"}, Quantization("bitsandbytes", 4, kind="bitsandbytes")),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, Quantization("bitsandbytes", 8, kind="bitsandbytes")),
        ({"quant_method": "odd"}, Quantization("odd", 16, kind="odd")),
        ({"bits": 2}, Quantization("unknown", 16, kind="unknown")),
        ({"quant_method": "ascend"}, Quantization("ascend", 8, activation_bits=8, kind="W8A8")),
        (
            {"quant_method": "ascend", "model_quant_type": "w8a16"},
            Quantization("ascend", 8, activation_bits=16, kind="W8A16"),
        ),
        (
            {"quant_method": "ascend", "model_quant_type": "W4A4"},
            Quantization("ascend", 4, activation_bits=4, kind="W4A4"),
        ),
        (
            {"quant_method": "ascend", "model_quant_type": "W16A16S"},
            Quantization("ascend", 16, activation_bits=16, kind="W16A16S"),
        ),
        ({"quant_method": "awq", "group_size": 64}, Quantization("awq", 4, kind="awq of 4 bits", group_size=64)),
        ({"quant_method": "awq", "q_group_size": 32}, Quantization("awq", 4, kind="awq of 4 bits", group_size=32)),
        ({"quant_method": "awq", "group_size": 7}, Quantization("awq", 4, kind="awq of 4 bits")),
        ({"quant_method": "awq", "group_size": -1}, Quantization("awq", 4, kind="awq of 4 bits")),
    ],
)
def test_formats_as_files_name_them(section: dict[str, Any], stored: Quantization) -> None:
    assert read_quantization({"quantization_config": section}, {}) == stored
    assert read_quantization({}, {"quantization_config": section}) == stored


def test_shown_values_are_short() -> None:
    for length, shown in ((38, "y" * 38), (39, "y" * 36 + "...")):
        with pytest.raises(UnreadableConfig) as raised:
            Fields({"a": "y" * length}).size("a")
        assert shown in str(raised.value)
