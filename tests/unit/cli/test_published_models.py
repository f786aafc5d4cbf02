"""Counts of released models against what their authors and their checkpoints state: one table, 2 % at most.

The table's `parameters` are totals of the released safetensors files without multi-token prediction layers (`exact`:
to the last digit), else the size that the release states; `cache` are the factors of a token's cache in bytes:
keys and values, layers that look back over everything, key-value heads, values a head, bytes of sixteen bits.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from ascend_facts.chips import find
from ascend_facts.memory_plan import MemoryRequest, request_on, weight_bytes
from ascend_facts.model_shape import read_model_shape
from ascend_facts.quantized_format import held_format, not_run, read_quantization

TABLE = json.loads((Path(__file__).parent / "data/published_models.json").read_text(encoding="utf-8"))
ROWS = {row["name"]: row for row in TABLE}


def shape_of(name: str, **changes: Any) -> Any:
    return read_model_shape({**ROWS[name]["config"], **changes})


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) == len(TABLE) >= 60
    assert sum("exact" in row for row in TABLE) >= 100


@pytest.mark.parametrize("name", list(ROWS))
def test_parameters_bytes_and_cache_are_the_published_ones(name: str) -> None:
    row, shape = ROWS[name], shape_of(name)
    if row.get("exact"):
        assert shape.parameters == row["parameters"]
    assert shape.parameters == pytest.approx(row["parameters"], rel=0.02)
    plain = weight_bytes(shape, MemoryRequest(1, 1 << 40))
    assert plain == 2 * shape.parameters
    assert shape.is_counted
    if row["cache"] is not None:
        assert 2 * shape.cache_values_per_token(1) == (prod(row["cache"]) if row["cache"] != [0] else 0)


@pytest.mark.parametrize(
    ("name", "per_token_b"),
    [
        ("Qwen/Qwen3-30B-A3B", 3.3),
        ("Qwen/Qwen3-235B-A22B", 22),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 35),
        ("deepseek-ai/DeepSeek-V3", 37),
        ("moonshotai/Kimi-K2-Instruct", 32),
        ("openai/gpt-oss-20b", 3.6),
        ("openai/gpt-oss-120b", 5.1),
        ("baidu/ERNIE-4.5-21B-A3B-PT", 3),
        ("baidu/ERNIE-4.5-300B-A47B-PT", 47),
        ("meta-llama/Llama-4-Scout-17B-16E", 17),
        ("meta-llama/Llama-4-Maverick-17B-128E", 17),
        ("google/gemma-4-26B-A4B", 3.8),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3.5),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 55),
        ("mistralai/Mixtral-8x7B-v0.1", 12.9),
        ("zai-org/GLM-4.5-Air", 12),
        ("deepseek-ai/DeepSeek-V4-Flash", 13),
    ],
)
def test_a_token_meets_as_many_parameters_as_the_authors_state(name: str, per_token_b: float) -> None:
    """With the row of the embedding table, which some authors count and some do not: 8 %."""
    shape = shape_of(name)
    table = shape.vocab_size * shape.hidden_size
    met = shape.parameters_per_token
    assert any(abs(count / 1e9 / per_token_b - 1) < 0.08 for count in (met, met + table, met - table))


@pytest.mark.parametrize(
    ("name", "quantization", "published_bytes"),
    [
        # The sizes of the released safetensors files.
        ("Qwen/Qwen2.5-7B-Instruct", {"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.58e9),
        ("Qwen/Qwen2.5-7B-Instruct", {"quant_method": "gptq", "bits": 8, "group_size": 128}, 8.87e9),
        ("Qwen/Qwen3-8B", {"quant_method": "awq", "bits": 4, "group_size": 128}, 6.10e9),
        ("Qwen/Qwen3-14B", {"quant_method": "awq", "bits": 4, "group_size": 128}, 9.97e9),
        ("Qwen/Qwen3-32B", {"quant_method": "awq", "bits": 4, "group_size": 128}, 19.3e9),
    ],
)
def test_bytes_of_quantized_checkpoints(name: str, quantization: dict[str, Any], published_bytes: float) -> None:
    shape, chip = shape_of(name, quantization_config=quantization), find("910B3")
    size = weight_bytes(shape, request_on(chip, weight_format=held_format(shape.stored, chip)))
    assert size == pytest.approx(published_bytes, rel=0.02)


def test_kimi_k2_5_holds_four_bits_in_its_experts_alone() -> None:
    """594 GB on the hub: 1.014 trillion expert weights in groups of 32, the other 12 thousand million in bfloat16."""
    config = json.loads(json.dumps(ROWS["moonshotai/Kimi-K2.5"]["config"]))
    config["text_config"]["quantization_config"]["ignore"] = [
        "lm_head",
        "re:.*self_attn.*",
        "re:.*shared_experts.*",
        "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
    ]
    shape, chip = read_model_shape(config), find("910B3")
    assert shape.stored.plain_kinds == ("attention", "mlp")
    assert held_format(shape.stored, chip, has_experts=True) == "w4a16"
    assert weight_bytes(shape, MemoryRequest(1, 1 << 40, "w4a16")) == pytest.approx(594e9, rel=0.03)


@pytest.mark.parametrize(
    ("section", "on_duo", "on_a2", "refused"),
    [
        ({"quant_method": "gptq", "bits": 4}, "w8a8", "w4a16", False),
        ({"quant_method": "gptq", "bits": 8}, "w8a16", "w8a16", True),
        ({"quant_method": "awq", "bits": 4}, "w8a8", "w4a16", False),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp16", "fp16", False),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp16", "fp16", False),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "w4a4", "w4a4", True),
        ({"quant_method": "mxfp4"}, "fp16", "fp16", False),  # gpt-oss, held plain
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "w8a8", "w4a16", True),
        ({"quant_method": "ascend", "model_quant_type": "W8A8_DYNAMIC"}, "w8a8", "w8a8", False),
        ({"quant_method": "ascend", "model_quant_type": "W4A8_DYNAMIC"}, "w4a8", "w4a8", True),
        ({"quant_method": "ascend", "model_quant_type": "W8A8SC"}, "w8a8", "w8a8", True),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "int-quantized",
                "config_groups": {"g": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}},
            },
            "w8a8",
            "w8a8",
            False,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": None}},
            },
            "w8a8",
            "w4a16",
            False,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp16",
            "fp16",
            False,
        ),
        ({"quant_method": "something-new"}, "fp16", "fp16", True),
        ({}, "fp16", "fp16", False),
    ],
)
def test_every_format_is_told(section: dict[str, Any], on_duo: str, on_a2: str, refused: bool) -> None:
    stored = read_quantization({"quantization_config": section}, {})
    assert [held_format(stored, find(chip)) for chip in ("310P3", "910B3")] == [on_duo, on_a2]
    assert bool(not_run(stored, find("310P3"))) is refused
    assert held_format(stored, find("310P3"), "float32") == "fp16+fp32"


def test_a_recurrent_state_keeps_its_own_dtype() -> None:
    """Qwen3.5-27B: 48 layers of 48 * 128 * 128 values in float32 and a window of 10,240 * 3 in sixteen bits."""
    shape = shape_of("Qwen/Qwen3.5-27B")
    assert shape.state_bytes_per_sequence("bfloat16") == 48 * (48 * 128 * 128 * 4 + 10240 * 3 * 2)
    assert shape.state_values_per_sequence == 48 * (48 * 128 * 128 + 10240 * 3)


def test_the_indexer_s_keys_count() -> None:
    """DeepSeek-V3.2: 132 bytes a layer and token beside 1,152 of the latent; GLM-5.2 shares one in four layers."""
    config = {**ROWS["deepseek-ai/DeepSeek-V3"]["config"], "index_n_heads": 64, "index_head_dim": 128}
    shape = read_model_shape(config)
    assert shape.indexer_bytes_per_token == 61 * 132
    shared = read_model_shape({**config, "indexer_types": ["full", "shared", "shared"] * 20 + ["full"]})
    assert shared.indexer_bytes_per_token == 21 * 132


def test_windowed_layers_keep_their_window() -> None:
    gemma = shape_of("google/gemma-4-26B-A4B")
    assert [(layers.layers, layers.window) for layers in gemma.caches] == [(5, 0), (25, 1024)]
    assert 2 * gemma.attended_values(1, 100_000) == 20_480 * 100_000 + 25 * 8 * 512 * 2 * 1024
    assert gemma.attended_values(1, 10) == 10 * (5 * 2 * 1024 + 25 * 8 * 512)
