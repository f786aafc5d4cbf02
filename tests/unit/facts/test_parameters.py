"""Parameters of models of a few values each, so that every product and sum can be done on paper."""

from __future__ import annotations

from typing import Any

import pytest

from ascend_facts.config_fields import Fields, UnreadableConfig
from ascend_facts.model_shape import Weights, read_model_shape
from ascend_facts.state_shape import Mixers, mixers
from ascend_facts.vision_shape import vision_parameters

# Of a tower: 3 wide, 2 layers, 5 inside, patches of 2 by 2; it ends in 7 values.
WIDTH, LAYERS, INNER, PATCH, HIDDEN = 3, 2, 5, 2, 7
TOWER = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": INNER, "patch_size": PATCH}
# Four matrices of 3 by 3 with biases (48), 4 * 5 up, 6 * 3 down, two norms of weight and bias (12).
PLAIN_LAYER = 48 + 20 + 18 + 12
# Three colors, 2 by 2, and a bias: 13 for each of 3.
PLAIN_TOWER = 2 * PLAIN_LAYER + 39


def tower(kind: str, **changes: Any) -> int:
    return vision_parameters({"model_type": kind, "vision_config": TOWER | changes}, HIDDEN)


@pytest.mark.parametrize(
    ("kind", "changes", "parameters"),
    [
        # Most: four patches are joined (12 values), a square matrix and one into 7.
        ("other", {}, PLAIN_TOWER + 12 * 12 + 12 * 7),
        # Default patch of 14: 3 * 196 + 1 for each of 3.
        ("other", {"patch_size": None}, 2 * PLAIN_LAYER + 589 * 3 + 144 + 84),
        # Layers of 36 + 45 + 6, patches without bias (36), a norm; into 7 and a square matrix.
        ("pixtral", {}, 2 * 87 + 36 + 3 + 21 + 49),
        ("mistral3", {}, 2 * 87 + 36 + 3 + (36 + 3) + 21 + 49),
        # Positions of (8 / 2)^2 patches, a last norm, a projection and its norm.
        ("gemma3", {"image_size": 8}, PLAIN_TOWER + 16 * 3 + 6 + 21 + 3),
        ("gemma3", {}, PLAIN_TOWER + 448**2 * 3 + 6 + 21 + 3),
        # Two scales a layer; 1,025 positions and a class token; joined norm (24), 12 * 7, 49 and biases of 7 twice.
        ("internvl_chat", {}, PLAIN_TOWER + 12 + 1026 * 3 + 24 + 84 + 49 + 14),
        # Gated layers of 36 + 45 + 12; patches (12) and positions in two axes; a projection.
        ("gemma4", {"position_embedding_size": 11}, 2 * 93 + (12 + 22) * 3 + 21),
        ("gemma4", {}, 2 * 93 + 12 * 3 + 21),
        # 576 patches and a class token; two matrices of a quarter; into 13, a square of it, and into 7.
        ("llama4", {"vision_output_dim": 13}, PLAIN_TOWER + 577 * 3 + 2 * 3 * 5 // 4 + 65 + 169 + 91),
        ("llama4", {}, PLAIN_TOWER + 577 * 3 + 7 + 5 * 4096 + 4096**2 + 4096 * 7),
    ],
)
def test_towers(kind: str, changes: dict[str, Any], parameters: int) -> None:
    assert tower(kind, **changes) == parameters


# Qwen's layers have a width of 4 times theirs inside: 48 + 4 * 12 + 13 * 3 + 12 = 147. Patches span two frames.
QWEN_PATCHES = 3 * 2 * 4 * 3
# Four patches joined: 12 values; (12 + 1) * 12 and (12 + 1) * 7.
QWEN_MERGER = 156 + 91


@pytest.mark.parametrize(
    ("kind", "section", "parameters"),
    [
        ("qwen2_vl", {"embed_dim": 3, "depth": 2, "patch_size": 2}, QWEN_PATCHES + 2 * 147 + 6 + QWEN_MERGER),
        # A temporal patch of one frame; the default patch of 14.
        (
            "qwen2_vl",
            {"embed_dim": 3, "depth": 2, "temporal_patch_size": 1},
            3 * 196 * 3 + 2 * 147 + 6 + QWEN_MERGER,
        ),
        # 32 layers of 1,280 by default.
        (
            "qwen2_vl",
            {"patch_size": 2},
            3 * 2 * 4 * 1280
            + 32 * (4 * 1281 * 1280 + 1281 * 5120 + 5121 * 1280 + 4 * 1280)
            + 2560
            + (5121 * 5120 + 5121 * 7),
        ),
        # Gated: 48, three matrices of 15 with biases 5, 5 and 3, two RMS norms of 3; a last norm.
        (
            "qwen2_5_vl",
            {"hidden_size": 3, "depth": 2, "intermediate_size": 5, "patch_size": 2, "out_hidden_size": 11},
            QWEN_PATCHES + 2 * (48 + 45 + 13 + 6) + 3 + 156 + 13 * 11,
        ),
        (
            "qwen2_5_vl",
            {"hidden_size": 3, "depth": 2, "intermediate_size": 5, "patch_size": 2},
            QWEN_PATCHES + 2 * (48 + 45 + 13 + 6) + 3 + QWEN_MERGER,
        ),
        (
            "qwen2_5_vl",
            {"patch_size": 2},
            3 * 2 * 4 * 1280
            + 32 * (4 * 1281 * 1280 + 3 * 1280 * 3420 + 2 * 3420 + 3 * 1280)
            + 1280
            + (5121 * 5120 + 5121 * 7),
        ),
        # Patches with a bias (3), 17 positions, layers of 98; the merger with a norm of 6, two taps with one of 24.
        (
            "qwen3_vl",
            {
                "hidden_size": 3,
                "depth": 2,
                "intermediate_size": 5,
                "patch_size": 2,
                "out_hidden_size": 7,
                "num_position_embeddings": 17,
                "deepstack_visual_indexes": [0, 1],
            },
            QWEN_PATCHES + 3 + 51 + 2 * PLAIN_LAYER + (QWEN_MERGER + 6) + 2 * (QWEN_MERGER + 24),
        ),
        (
            "qwen3_5",
            {"hidden_size": 3, "depth": 2, "intermediate_size": 5, "out_hidden_size": 7},
            3 * 2 * 256 * 3 + 3 + 2 * PLAIN_LAYER + QWEN_MERGER + 6,
        ),
    ],
)
def test_towers_of_qwen(kind: str, section: dict[str, Any], parameters: int) -> None:
    assert vision_parameters({"model_type": kind, "vision_config": section}, HIDDEN) == parameters
    # The tower's own type goes first.
    assert vision_parameters({"visual": section | {"model_type": kind}, "model_type": "x"}, HIDDEN) == parameters


def test_where_towers_are_found() -> None:
    assert vision_parameters({"model_type": "other"}, HIDDEN) == 0
    found = tower("other")
    for name in ("vision_config", "vision_tower_config", "visual"):
        assert vision_parameters({name: TOWER}, HIDDEN) == found
    assert vision_parameters({"thinker_config": {"vision_config": TOWER}}, HIDDEN) == found
    spelled = {"width": WIDTH, "layers": LAYERS, "mlp_ratio": 5 / 3, "patch_size": PATCH}
    assert vision_parameters({"vision_config": spelled}, HIDDEN) == found
    spelled = {"vt_hidden_size": WIDTH, "vt_num_hidden_layers": LAYERS, "vt_intermediate_size": INNER, "patch_size": 2}
    assert vision_parameters({"vision_config": spelled}, HIDDEN) == found
    for ratio in (0, 100, True, "4", None, -1):
        with pytest.raises(UnreadableConfig, match="picture tower without a usable 'intermediate_size'"):
            vision_parameters({"vision_config": {"width": 3, "layers": 2, "mlp_ratio": ratio}}, HIDDEN)
    for missing in ("hidden_size", "num_hidden_layers"):
        with pytest.raises(UnreadableConfig, match="picture tower"):
            tower("other", **{missing: None})


# ------------------------------------------------------------------------------------------- recurrent layers


def test_gated_delta_nets() -> None:
    fields = Fields({
        "hidden_size": 7, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 3,
        "linear_value_head_dim": 5, "linear_conv_kernel_dim": 4,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    })  # fmt: skip
    # Keys 6, values 20. q, k (6 each), v and the gate (20 each) of 7: 364; decay and beta of 4 heads: 56; output 140.
    # A convolution over 6 + 6 + 20 channels of 4: 128; decay's two values a head: 8; a norm of 5.
    # Its window is 3 of 32; the state 20 by 3.
    assert mixers(fields, 4) == Mixers(1, 3, 4, 364 + 56 + 140 + 128 + 8 + 5, 96, 60)
    by_interval = Fields({name: value for name, value in fields.fields.items() if name != "layer_types"})
    by_interval = Fields(dict(by_interval.fields) | {"full_attention_interval": 3})
    assert mixers(by_interval, 7).recurrent == 5 and mixers(by_interval, 7).attention == 2
    with pytest.raises(UnreadableConfig, match="lists 3 recurrent layers of 2"):
        mixers(fields, 2)
    assert mixers(fields, 3).attention == 0


MAMBA = {
    "hidden_size": 7, "mamba_num_heads": 3, "mamba_head_dim": 2, "ssm_state_size": 5, "conv_kernel": 4, "n_groups": 2,
}  # fmt: skip


def test_mamba_layers() -> None:
    # Inner 6; the convolution runs over 6 + 2 * 2 * 5 = 26. Into 6 + 26 + 3 of 7: 245; 26 * 4 and its bias: 130;
    # three values a head: 9; a norm of 6; out 42. Window 26 * 3, state 6 * 5.
    each = (245 + 130 + 9 + 6 + 42, 78, 30)
    assert mixers(Fields(MAMBA | {"hybrid_override_pattern": "MM*E-M"}), 6) == Mixers(1, 3, 2, *each)
    blocks = ["mamba", "attention", "moe", "mlp", "mamba2"]
    assert mixers(Fields(MAMBA | {"layers_block_type": blocks}), 5) == Mixers(1, 2, 2, *each)
    without_bias = mixers(Fields(MAMBA | {"hybrid_override_pattern": "M", "use_conv_bias": False}), 1)
    assert without_bias.parameters == 432 - 26
    assert mixers(Fields({"hybrid_override_pattern": "*E"}), 2) == Mixers(1, 0, 1)
    for pattern in ({"hybrid_override_pattern": "MX"}, {"layers_block_type": ["mamba", "strange"]}):
        with pytest.raises(UnreadableConfig, match="'X'" if "hybrid_override_pattern" in pattern else "'strange'"):
            mixers(Fields(MAMBA | pattern), 2)


def test_kimi_delta_attention() -> None:
    section: dict[str, Any] = {"kda_layers": [1, 2, 4], "num_heads": 3, "head_dim": 2, "short_conv_kernel_size": 4}
    # Inner 6. q, k, v and output of 7: 168; three convolutions of 4: 72; decay and gate of rank 2: 14 + 12 each; beta
    # 21; a value a head, a bias of 6, a norm of 2. Window 3 * 6 * 3, state 6 * 2.
    low_rank = Mixers(1, 3, 4, 168 + 72 + 26 + 26 + 21 + 3 + 6 + 2, 54, 12)
    assert mixers(Fields({"hidden_size": 7, "linear_attn_config": section}), 4) == low_rank
    full = mixers(Fields({"hidden_size": 7, "linear_attn_config": section | {"use_full_rank_gate": True}}), 4)
    assert full.parameters == low_rank.parameters - 26 + 42
    assert mixers(Fields({"hidden_size": 7, "linear_attn_config": section}), 3).attention == 0
    for layers, names in ((2, [1, 2, 4]), (4, [])):
        with pytest.raises(UnreadableConfig, match=f"lists {len(names)} delta-attention layers of {layers}"):
            mixers(Fields({"hidden_size": 7, "linear_attn_config": section | {"kda_layers": names}}), layers)


def test_recurrences_that_are_not_counted_are_refused() -> None:
    for name in ("state_size", "ssm_cfg", "time_mix_extra_dim", "mamba_d_state", "rnn_hidden_size"):
        with pytest.raises(UnreadableConfig, match=name):
            mixers(Fields({name: 3}), 2)
    assert mixers(Fields({"attn_type_list": [1, 1]}), 2) == Mixers(2, feed_forward=2)
    for kinds in ([1, 0], [], [2, 2]):
        with pytest.raises(UnreadableConfig, match="attn_type_list"):
            mixers(Fields({"attn_type_list": kinds}), 2)
    with pytest.raises(UnreadableConfig, match="'strange'"):
        mixers(Fields({"layer_types": ["full_attention", "strange"]}), 2)


# --------------------------------------------------------------------------------------------- whole models

SMALL: dict[str, Any] = {
    "architectures": ["SmallForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 5, "vocab_size": 11,
    "max_position_embeddings": 100, "torch_dtype": "torch.bfloat16",
}  # fmt: skip


def kinds(config: dict[str, Any]) -> dict[str, Weights]:
    return {weights.kind: weights for weights in read_model_shape(config).weights}


def test_a_llama() -> None:
    shape = read_model_shape(SMALL)
    assert (shape.layers, shape.attention_layers, shape.hidden_size, shape.heads) == (3, 3, 8, 4)
    assert (shape.kv_heads, shape.head_dim, shape.intermediate_size, shape.vocab_size) == (2, 2, 5, 11)
    assert (shape.max_context, shape.dtype, shape.architecture) == (100, "bfloat16", "SmallForCausalLM")
    found = kinds(SMALL)
    assert set(found) == {"embedding", "attention", "mlp", "norms", "lm_head"}
    assert found["embedding"] == Weights("embedding", 88, 0, True, False)
    # 8 by 8 twice, 8 by 4 twice.
    assert found["attention"] == Weights("attention", 3 * 192, 3 * 192, True, True)
    assert found["mlp"] == Weights("mlp", 3 * 120, 3 * 120, True, True)
    assert found["norms"] == Weights("norms", 7 * 8, 7 * 8, False, False)
    assert found["lm_head"] == Weights("lm_head", 88, 88, True, False)
    assert (shape.parameters, shape.parameters_per_token) == (88 + 576 + 360 + 56 + 88, 576 + 360 + 56 + 88)
    assert not shape.has_tied_head and not shape.has_experts and not shape.is_latent
    tied = read_model_shape(SMALL | {"tie_word_embeddings": True})
    assert tied.has_tied_head and tied.parameters == shape.parameters - 88
    assert tied.parameters_per_token == shape.parameters_per_token
    assert read_model_shape({name: value for name, value in SMALL.items() if name != "torch_dtype"}).dtype == "float16"
    assert read_model_shape(SMALL | {"max_position_embeddings": None}).max_context == 2048
    assert read_model_shape(SMALL | {"architectures": None}).architecture == "unknown"
    assert read_model_shape(SMALL | {"architectures": ["x" * 300]}).architecture == "x" * 200


def test_a_gemma_whose_full_layers_have_heads_of_their_own() -> None:
    layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    config = SMALL | {"layer_types": layer_types, "sliding_window": 10, "global_head_dim": 3}
    # Two layers of 192; the full one: queries and output of 8 by 12, two key-value matrices of 8 by 6, norms of 3 each.
    assert kinds(config)["attention"].parameters == 2 * 192 + 8 * 3 * (8 + 2 * 2) + 6
    shared = config | {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
    assert kinds(shared)["attention"].parameters == 2 * 192 + 8 * 3 * (8 + 1) + 6
    shape = read_model_shape(shared)
    assert [(each.layers, each.kv_heads, each.values, each.window) for each in shape.caches] == [
        (1, 1, 6, 0), (2, 2, 4, 10),
    ]  # fmt: skip
    # 100 tokens: the full layer reads 6 of each, the others 2 * 2 * 4 of the last ten.
    assert shape.attended_values(1, 100) == 600 + 160
    assert shape.attended_values(1, 5) == 30 + 80
    assert shape.attended_values(2, 100) == 600 + 80


def test_models_with_experts() -> None:
    config = SMALL | {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 4, "model_type": "x"}
    found = kinds(config)
    assert found["experts"] == Weights("experts", 3 * 6 * 96, 3 * 2 * 96, True, True, 6, 2)
    assert found["router"] == Weights("router", 3 * 48, 3 * 48, False, False)
    assert found["mlp"].parameters == 0
    # One token touches 2 of 6; two touch 1 - (2 / 3)^2 of them.
    assert found["experts"].parameters_read(1) == pytest.approx(1728 / 3)
    assert found["experts"].parameters_read(2) == pytest.approx(1728 * 5 / 9)
    assert found["embedding"].parameters_read(9) == 0.0
    assert Weights("vision", 5, 0, True, False).parameters_read(9) == 0.0
    assert found["norms"].parameters_read(9) == 56.0


def test_encoders_have_positions_types_and_a_pooler() -> None:
    bert = SMALL | {"model_type": "bert", "type_vocab_size": 2, "max_position_embeddings": 10}
    found = kinds(bert)
    assert "lm_head" not in found
    assert found["embedding"].parameters == (11 + 10 + 2) * 8
    assert read_model_shape(bert).caches == ()
    # A type vocabulary of a decoder is none of its own.
    assert (
        kinds(SMALL | {"model_type": "gpt2", "type_vocab_size": 2, "max_position_embeddings": 10})[
            "embedding"
        ].parameters
        == (11 + 10) * 8
    )


def test_layers_may_be_listed() -> None:
    blocks = {"layers_block_type": ["mamba", "attention", "mlp"], "num_hidden_layers": None}
    assert read_model_shape(SMALL | MAMBA | {"hidden_size": 8} | blocks).layers == 3
    for name in ("is_encoder_decoder", "encoder_layers", "d_kv"):
        with pytest.raises(UnreadableConfig, match="encoder and a decoder"):
            read_model_shape(SMALL | {name: True if name.startswith("is") else 2})


def test_states_of_sequences() -> None:
    layers = {"layers_block_type": ["mamba", "attention", "mlp"], "mamba_ssm_dtype": "float32"}
    shape = read_model_shape(SMALL | MAMBA | {"hidden_size": 8} | layers)
    # A window of 78 in two bytes, a matrix of 30 in four.
    assert shape.state_values_per_sequence == 108
    assert shape.state_bytes_per_sequence("float16") == 156 + 120
    assert shape.state_bytes_per_sequence("float32") == 312 + 120
    assert shape.cache_values_per_token(1) == 2 * 4
    assert shape.cache_values_per_token(2) == shape.cache_values_per_token(4) == 4


@pytest.mark.parametrize(("size", "splits"), [(1, True), (2, True), (3, False), (4, True), (8, False)])
def test_heads_that_can_be_divided(size: int, splits: bool) -> None:
    assert read_model_shape(SMALL).splits_into(size) is splits


def test_heads_of_keys_divide_or_are_divided() -> None:
    uneven = read_model_shape(SMALL | {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 2})
    assert [size for size in range(1, 7) if uneven.splits_into(size)] == [1, 3, 6]
