"""Checkpoints: what their tensors and the files beside them tell of the model."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ascend_cli.errors import UsageError
from ascend_cli.registry.cards import find_model
from ascend_cli.serving.checkpoints import check_checkpoint
from ascend_facts import chips
from ascend_facts.checkpoint import Tensor, measured
from ascend_facts.memory_plan import MemoryRequest, weight_bytes
from ascend_facts.model_shape import ModelShape, read_model_shape
from ascend_facts.quantized_format import held_format

from .conftest import QWEN3_32B


def write_checkpoint(folder: Path, entries: dict[str, tuple[str, list[int]]], name: str = "model.safetensors") -> None:
    header = {key: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for key, (dtype, shape) in entries.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)


TINY = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def tiny_tensors(dtype: str = "BF16") -> dict[str, tuple[str, list[int]]]:
    entries = {
        "model.embed_tokens.weight": ("BF16", [100, 16]),
        "lm_head.weight": ("BF16", [100, 16]),
        "model.norm.weight": ("BF16", [16]),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": [32, 16],
            "self_attn.k_proj": [16, 16],
            "self_attn.v_proj": [16, 16],
            "self_attn.o_proj": [16, 32],
            "mlp.gate_proj": [40, 16],
            "mlp.up_proj": [40, 16],
            "mlp.down_proj": [16, 40],
        }.items():
            entries[f"{prefix}{name}.weight"] = (dtype, shape)
        for name, width in {"q_norm": 8, "k_norm": 8}.items():
            entries[f"{prefix}self_attn.{name}.weight"] = ("BF16", [width])
        for name in ("input_layernorm", "post_attention_layernorm"):
            entries[f"{prefix}{name}.weight"] = ("BF16", [16])
    return entries


def by_kind(shape: ModelShape) -> dict[tuple[str, bool], int]:
    return {(weights.kind, weights.quantized): weights.parameters for weights in shape.weights}


def test_tensors_give_the_same_count_as_the_configuration(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_tensors())
    read = read_model_shape(TINY)
    counted = measured(read, tmp_path)
    assert counted.parameters == read.parameters == 2 * 1600 + 2 * (512 + 256 + 256 + 512 + 3 * 640 + 16 + 32) + 16
    kinds = by_kind(counted)
    assert kinds["embedding", False] == kinds["lm_head", False] == 1600
    assert kinds["attention", True] == 2 * 1536
    assert kinds["mlp", True] == 2 * 1920
    assert kinds["norms", False] == 2 * 48 + 16
    assert counted.parameters_per_token == read.parameters_per_token


def test_float_matrices_of_a_quantized_checkpoint_are_seen(tmp_path: Path) -> None:
    """W8A8 with down_proj left in bfloat16, as many are: the plan must not halve it."""
    entries = tiny_tensors("I8")
    for layer in range(2):
        entries[f"model.layers.{layer}.mlp.down_proj.weight"] = ("BF16", [16, 40])
        entries[f"model.layers.{layer}.mlp.up_proj.weight_scale"] = ("F32", [40, 1])
    write_checkpoint(tmp_path, entries)
    shape = read_model_shape({**TINY, "quantization_config": {"quant_method": "ascend"}})
    kinds = by_kind(measured(shape, tmp_path))
    assert kinds["mlp", True] == 2 * 2 * 640
    assert kinds["mlp", False] == 2 * 640
    size = weight_bytes(measured(shape, tmp_path), MemoryRequest(1, 1 << 30, "w8a8"))
    assert size == 2 * (1600 + 1600 + 112 + 1280) + (3072 + 2560)


def test_packed_weights_are_unpacked_for_counting(tmp_path: Path) -> None:
    entries = {name: entry for name, entry in tiny_tensors().items() if ".mlp." not in name}
    for layer in range(2):
        for name, (rows, columns) in {"gate_proj": (16, 40), "up_proj": (16, 40), "down_proj": (40, 16)}.items():
            entries[f"model.layers.{layer}.mlp.{name}.qweight"] = ("I32", [rows, columns // 8])
            entries[f"model.layers.{layer}.mlp.{name}.scales"] = ("F16", [1, columns])
            entries[f"model.layers.{layer}.mlp.{name}.qzeros"] = ("I32", [1, columns // 8])
    write_checkpoint(tmp_path, entries)
    shape = read_model_shape({**TINY, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert by_kind(measured(shape, tmp_path))["mlp", True] == 2 * 1920


def test_experts_routers_and_towers_are_told_apart(tmp_path: Path) -> None:
    entries = {name: entry for name, entry in tiny_tensors().items() if ".mlp." not in name}
    for layer in range(2):
        entries[f"model.layers.{layer}.mlp.gate.weight"] = ("BF16", [4, 16])
        for expert in range(4):
            for name, shape in {"gate_proj": [6, 16], "up_proj": [6, 16], "down_proj": [16, 6]}.items():
                entries[f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight"] = ("BF16", shape)
        entries[f"model.layers.{layer}.attention.dense.weight"] = ("BF16", [3, 5])
        entries[f"model.layers.{layer}.linear_attn.in_proj.weight"] = ("BF16", [2, 7])
    entries["model.visual.blocks.0.attn.qkv.weight"] = ("BF16", [12, 4])
    entries["vision_tower.patch.weight"] = ("BF16", [9, 2])
    write_checkpoint(tmp_path, entries)
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
    shape = measured(read_model_shape({**TINY, "model_type": "qwen3_moe", **sizes}), tmp_path)
    kinds = by_kind(shape)
    assert kinds["experts", True] == 2 * 4 * 3 * 96
    assert kinds["router", False] == 2 * 64
    assert kinds["vision", False] == 48 + 18
    assert kinds["attention", True] == 2 * (1536 + 15)
    assert kinds["linear attention", True] == 2 * 14
    experts = next(weights for weights in shape.weights if weights.kind == "experts")
    assert (experts.experts, experts.experts_per_token, experts.per_token) == (4, 2, 2 * 2 * 3 * 96)
    assert experts.split and not next(weights for weights in shape.weights if weights.kind == "router").split


def test_four_bits_in_a_byte_are_two_weights() -> None:
    for dtype in ("I8", "U8"):
        assert Tensor("a.weight", dtype, (3, 5)).weights(4) == 30
        assert Tensor("a.weight", dtype, (3, 5)).weights(8) == 15
    assert Tensor("a.weight_packed", "I32", (3, 5)).weights(4) == 120
    assert Tensor("a.weight", "BF16", (3, 5)).size_bytes == 30


def test_what_serving_does_not_load_is_not_counted(tmp_path: Path) -> None:
    entries = tiny_tensors() | {
        "mtp.layers.0.mlp.up_proj.weight": ("BF16", [40, 16]),
        "model.layers.2.mlp.up_proj.weight": ("BF16", [40, 16]),  # beyond num_hidden_layers: a draft layer
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [4]),
    }
    write_checkpoint(tmp_path, entries)
    assert measured(read_model_shape(TINY), tmp_path).parameters == read_model_shape(TINY).parameters
    tied = read_model_shape({**TINY, "tie_word_embeddings": True})
    assert measured(tied, tmp_path).parameters == tied.parameters  # the head in the file is not loaded
    assert measured(tied, tmp_path).has_tied_head


def test_an_incomplete_checkpoint_is_planned_from_its_configuration(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"model.norm.weight": ("BF16", [16])}, "model-00001-of-00002.safetensors")
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    read = read_model_shape(TINY)
    assert measured(read, tmp_path) == read
    for broken in ("[]", "{}", "{", '{"weight_map": []}', '{"weight_map": {"a": 3}}'):
        (tmp_path / "model.safetensors.index.json").write_text(broken)
        assert measured(read, tmp_path) == read


@pytest.mark.parametrize(
    "content", [b'{"a":' * 100_000, b"\xef\xbb\xbf" + json.dumps(QWEN3_32B).encode(), "utf16".encode("utf-16")]
)
def test_nesting_and_encodings(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    if content.startswith(b"\xef\xbb\xbf"):
        assert find_model(str(tmp_path)).shape.parameters == 32_762_123_264
    else:
        with pytest.raises(UsageError, match="download it again"):
            find_model(str(tmp_path))


def test_mistral_s_own_files_are_read(tmp_path: Path) -> None:
    sizes = {"dim": 5120, "n_layers": 40, "head_dim": 128, "hidden_dim": 32768, "n_heads": 32, "n_kv_heads": 8}
    (tmp_path / "params.json").write_text(json.dumps({**sizes, "vocab_size": 131072}))
    assert find_model(str(tmp_path)).shape.parameters == 23_572_403_200


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [
        ({"model_quant_type": "W8A8", "a.weight": "W8A8", "b.weight": "FLOAT"}, "W8A8"),
        ({"model_quant_type": "W8A8_DYNAMIC", "a.weight": "W8A8_DYNAMIC"}, "W8A8_DYNAMIC"),
        ({"model_quant_type": "W4A8_DYNAMIC", "a": "W8A8_DYNAMIC", "b": "W4A8_DYNAMIC"}, "W4A8_DYNAMIC"),
        ({"model_quant_type": "W8A8SC"}, "W8A8SC"),
    ],
)
def test_modelslim_s_description_tells_the_format(kinds: dict[str, str], kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_32B))
    (tmp_path / "quant_model_description.json").write_text(json.dumps(kinds))
    shape = find_model(str(tmp_path)).shape
    assert (shape.stored.method, shape.stored.kind) == ("ascend", kind)
    assert held_format(shape.stored, chips.find("310P3")) == ("w4a8" if kind.startswith("W4") else "w8a8")


@pytest.mark.parametrize(
    "kind", ["W8A8S", "W8A8SC", "W8A8_MIX", "W4A4_FLATQUANT_DYNAMIC", "W8A8_MXFP8", "FAQuant", "C8"]
)
def test_a_kind_that_modelslim_writes_is_not_called_broken(kind: str, tmp_path: Path) -> None:
    """Whether it runs is said elsewhere: a download without a fault must not be asked for again."""
    save_file({"a.weight": np.zeros((2, 2), np.float16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_32B))
    (tmp_path / "quant_model_description.json").write_text(json.dumps({"a.weight": kind}))
    check_checkpoint(tmp_path)
    (tmp_path / "quant_model_description.json").write_text(json.dumps({"a.weight": "W3A3"}))
    with pytest.raises(UsageError, match="'W3A3', which is no kind that ModelSlim writes"):
        check_checkpoint(tmp_path)
