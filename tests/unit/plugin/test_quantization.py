"""What a ModelSlim checkpoint's description says of a layer, and which descriptions are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ascend_facts import chips
from ascend_plugin import detection
from ascend_plugin.quantization.modelslim import ModelSlimConfig, UnsupportedCheckpoint

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@pytest.fixture(autouse=True)
def _on_a_duo_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "current_chip", lambda: chips.find("310P3"))


def config(**kinds: str) -> ModelSlimConfig:
    """A description of one layer; keywords are names with __ for the dots."""
    entries: dict[str, Any] = {"model_quant_type": "W8A8", "version": "1.0.0"}
    entries |= {f"model.layers.0.{name.replace('__', '.')}.weight": kind for name, kind in kinds.items()}
    read = ModelSlimConfig.from_config(entries)
    read.packed_modules_mapping = PACKED
    return read


def test_layers_have_the_kind_of_their_weights() -> None:
    read = config(self_attn__o_proj="W8A8", mlp__down_proj="W8A8_DYNAMIC", mlp__gate="FLOAT")
    assert read.kind_of("model.layers.0.self_attn.o_proj") == "W8A8"
    assert read.kind_of("model.layers.0.mlp.down_proj") == "W8A8_DYNAMIC"
    assert read.kind_of("model.layers.0.mlp.gate") == "FLOAT"
    assert read.kind_of("model.layers.9.mlp.down_proj") == "FLOAT"  # not named


def test_packed_layers_are_of_the_kind_of_their_parts() -> None:
    read = config(self_attn__q_proj="W8A8", self_attn__k_proj="W8A8", self_attn__v_proj="W8A8")
    assert read.kind_of("model.layers.0.self_attn.qkv_proj") == "W8A8"


def test_parts_of_different_kinds_are_refused_by_name() -> None:
    read = config(mlp__gate_proj="W8A8", mlp__up_proj="FLOAT")
    with pytest.raises(UnsupportedCheckpoint, match=r"gate_proj, up_proj of model\.layers\.0\.mlp"):
        read.kind_of("model.layers.0.mlp.gate_up_proj")


def test_experts_have_one_kind() -> None:
    names = [f"mlp__experts__{expert}__{part}" for expert in range(2) for part in ("gate_proj", "up_proj", "down_proj")]
    read = config(**dict.fromkeys(names, "W8A8_DYNAMIC"))
    assert read.kind_of_experts("model.layers.0.mlp.experts") == "W8A8_DYNAMIC"
    assert read.kind_of_experts("model.layers.1.mlp.experts") == "FLOAT"
    mixed = config(**{names[0]: "W8A8_DYNAMIC", names[1]: "FLOAT"})
    with pytest.raises(UnsupportedCheckpoint, match="different kinds"):
        mixed.kind_of_experts("model.layers.0.mlp.experts")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("W8A8S", "sparse weights"),
        ("W8A8SC", "compressed for one tensor-parallel size"),
        ("W4A4_FLATQUANT_DYNAMIC", "does not read yet"),
    ],
)
def test_other_kinds_are_refused_in_one_sentence_with_the_remedy(kind: str, words: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=words) as refusal:
        config(mlp__down_proj=kind)
    assert str(refusal.value).startswith("Use a W8A8 or W8A8_DYNAMIC checkpoint")
    assert "model.layers.0.mlp.down_proj.weight" in str(refusal.value)


def test_experts_with_constant_scales_are_refused() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="quantized by token only"):
        config(mlp__experts__0__up_proj="W8A8")


def test_a_quantized_output_matrix_is_refused() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="must be FLOAT"):
        ModelSlimConfig.from_config({"lm_head.weight": "W8A8"})
