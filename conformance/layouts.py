"""Checkpoint layouts of models whose mathematics transformers has under another name.

InternLM and MiniCPM ship their model as Python code beside the weights; transformers has no class for them, vLLM has.
The reference is then an equal model (Llama, Granite), and its checkpoint is renamed and repacked as the authors
publish it, with the configuration class that vLLM loads through `--trust-remote-code`. Others differ from what
transformers writes in a field or a weight. Sources: vLLM's loaders
(model_executor/models/internlm2.py, minicpm.py) and the published config.json files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]
Config = dict[str, Any]

CONFIGURATION_CODE = """\
from transformers import PreTrainedConfig


class {name}(PreTrainedConfig):
    model_type = "{model_type}"
    keys_to_ignore_at_inference = ["past_key_values"]
"""


def published_layout(layout: str, directory: Path) -> None:
    """Rewrite a transformers checkpoint in place: config.json, weights and the configuration class."""
    weights = load_file(directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    weights, config, class_name = LAYOUTS[layout](weights, config)
    if class_name is not None:
        module, model_type = f"configuration_{config['model_type']}", config["model_type"]
        config["auto_map"] = {"AutoConfig": f"{module}.{class_name}"}
        (directory / f"{module}.py").write_text(CONFIGURATION_CODE.format(name=class_name, model_type=model_type))
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def _internlm2(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    names = {
        r"model\.embed_tokens": "model.tok_embeddings",
        r"self_attn\.o_proj": "attention.wo",
        r"mlp\.gate_proj": "feed_forward.w1",
        r"mlp\.up_proj": "feed_forward.w3",
        r"mlp\.down_proj": "feed_forward.w2",
        r"input_layernorm": "attention_norm",
        r"post_attention_layernorm": "ffn_norm",
        r"lm_head": "output",
    }
    packed = {}
    for name, weight in weights.items():
        if match := re.fullmatch(r"(model\.layers\.\d+)\.self_attn\.([qkv])_proj\.weight", name):
            if match[2] == "q":
                packed[f"{match[1]}.attention.wqkv.weight"] = _pack_qkv(weights, match[1], config)
        else:
            packed[name] = weight
    changes = {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False}
    return _renamed(packed, names), {**config, **changes}, "InternLM2Config"


def _pack_qkv(weights: Weights, layer: str, config: Config) -> torch.Tensor:
    """InternLM2's wqkv: for each key head its query heads, then the key, then the value ([heads * dim, hidden])."""
    groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
    hidden = config["hidden_size"]
    q, k, v = (
        weights[f"{layer}.self_attn.{letter}_proj.weight"].reshape(groups, -1, hidden // heads, hidden)
        for letter in "qkv"
    )
    return torch.cat([q, k, v], dim=1).reshape(-1, hidden).contiguous()


def _internlm3(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    changes = {"model_type": "internlm3", "architectures": ["InternLM3ForCausalLM"], "bias": False, "qkv_bias": False}
    return weights, {**config, **changes}, "InternLM3Config"


def _minicpm(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    changes = {
        "model_type": "minicpm",
        "architectures": ["MiniCPMForCausalLM"],
        "scale_emb": config["embedding_multiplier"],
        "scale_depth": config["residual_multiplier"] * config["num_hidden_layers"] ** 0.5,
        "dim_model_base": config["hidden_size"] / config["logits_scaling"],
    }
    return weights, {**config, **changes}, "MiniCPMConfig"


def _cohere_window(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """A window of n sees n + 1 tokens, as the models were trained and vLLM runs them; transformers lets n be seen."""
    return weights, {**config, "sliding_window": config["sliding_window"] - 1}, None


def _axk1(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """Each layer has a norm after its block, of which the dense layers make no use; vLLM wants it in the file."""
    used = {name: weight for name, weight in weights.items() if name.endswith(".post_mlp_layernorm.weight")}
    like = next(iter(used.values()))
    unused = {f"model.layers.{layer}.post_mlp_layernorm.weight" for layer in range(config["num_hidden_layers"])}
    return {**weights, **{name: torch.ones_like(like) for name in unused - used.keys()}}, config, None


def _longcat_flash(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """Experts that hand on what they get have no weights; transformers keeps a half of each, which nothing reads."""
    expert = re.compile(r"\.experts\.(\d+)\.")
    real = config["n_routed_experts"]
    return {name: w for name, w in weights.items() if not (m := expert.search(name)) or int(m[1]) < real}, config, None


def _lighton_ocr(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """Published as a Mistral 3 with another reader of text, before transformers had a class for it; vLLM wants that."""
    changes = {
        "model_type": "mistral3",
        "image_token_index": config.pop("image_token_id"),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "multimodal_projector_bias": False,
    }
    return weights, {**config, **changes}, None


def _qwen3_omni(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """The thinker is one of three models in the published file; what speaks is left out."""
    whole = {
        "model_type": "qwen3_omni_moe",
        "architectures": config["architectures"],
        "dtype": config.get("dtype"),
        "enable_audio_output": False,
        "thinker_config": config,
    }
    return {f"thinker.{name}": weight for name, weight in weights.items()}, whole, None


def _qwen2_5_omni(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """The thinker alone, as of Qwen3-Omni; its parts are named by the model's name."""
    named, whole, _ = _qwen3_omni(weights, config)
    whole.update(model_type="qwen2_5_omni", enable_talker=False)
    return named, whole, None


def _renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Every weight under the name that all of these patterns, one after the other, make of its own."""
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = weight
    return renamed


def _exaone(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    names = {
        r"model\.embed_tokens": "transformer.wte",
        r"model\.norm": "transformer.ln_f",
        r"model\.layers": "transformer.h",
        r"self_attn\.o_proj": "attn.attention.out_proj",
        r"self_attn": "attn.attention",
        r"mlp\.gate_proj": "mlp.c_fc_0",
        r"mlp\.up_proj": "mlp.c_fc_1",
        r"mlp\.down_proj": "mlp.c_proj",
        r"input_layernorm": "ln_1",
        r"post_attention_layernorm": "ln_2",
    }
    changes = {"model_type": "exaone", "activation_function": "silu", "layer_norm_epsilon": config["rms_norm_eps"]}
    return _renamed(weights, names), {**config, **changes}, "ExaoneConfig"


def _orion(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    return weights, {**config, "model_type": "orion", "rms_norm_eps": config["layer_norm_eps"]}, "OrionConfig"


def _telechat2(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    """Keys and values head by head in one matrix; biases, which Llama's equal has not, are zero."""
    names = {
        r"model\.embed_tokens": "transformer.word_embeddings",
        r"model\.norm": "transformer.ln_f",
        r"model\.layers": "transformer.h",
        r"self_attn\.q_proj": "self_attention.query",
        r"self_attn\.o_proj": "self_attention.dense",
    }
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        parts = [weights.pop(f"{prefix}.self_attn.{letter}_proj.weight").view(heads, -1, hidden) for letter in "kv"]
        weights[f"{prefix}.self_attention.key_value.weight"] = torch.cat(parts, dim=1).view(-1, hidden).contiguous()
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"{prefix}.{name}.bias"] = torch.zeros(hidden, dtype=parts[0].dtype)
    changes = {
        "model_type": "telechat",
        "n_layer": config["num_hidden_layers"],
        "n_head": heads,
        "ffn_hidden_size": config["intermediate_size"],
        "layer_norm_epsilon": config["rms_norm_eps"],
    }
    return _renamed(weights, names), {**config, **changes}, "TelechatConfig"


def _teleflm(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    scale = {"use_mup": True, "mup_scale_factor": config["logits_scaling"], "output_mult": 1.0}
    return weights, {**config, **scale, "model_type": "teleflm"}, "TeleFLMConfig"


def _pangu_embedded(weights: Weights, config: Config) -> tuple[Weights, Config, str]:
    return weights, {**config, "model_type": "PanguEmbedded", "bias": True}, "PanguEmbeddedConfig"


def _chatglm(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """GLM before transformers had a class for it: queries, keys and values in one matrix; vLLM brings the config."""
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn"
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{prefix}.{letter}_proj.{kind}") for letter in "qkv"]
            weights[f"{prefix}.query_key_value.{kind}"] = torch.cat(parts)
    names = {
        r"model\.embed_tokens": "transformer.embedding.word_embeddings",
        r"model\.norm": "transformer.encoder.final_layernorm",
        r"model\.layers": "transformer.encoder.layers",
        r"self_attn\.o_proj": "self_attention.dense",
        r"self_attn": "self_attention",
        r"mlp\.gate_up_proj": "mlp.dense_h_to_4h",
        r"mlp\.down_proj": "mlp.dense_4h_to_h",
        r"lm_head": "transformer.output_layer",
    }
    kept = ("architectures", "hidden_size", "num_attention_heads", "dtype", "bos_token_id", "eos_token_id")
    fields = {
        "model_type": "chatglm",
        "num_layers": config["num_hidden_layers"],
        "padded_vocab_size": config["vocab_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "kv_channels": config["head_dim"],
        "seq_length": config["max_position_embeddings"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "multi_query_attention": True,
        "multi_query_group_num": config["num_key_value_heads"],
        "add_qkv_bias": True,
        "original_rope": True,
        "tie_word_embeddings": False,
    }
    return _renamed(weights, names), {**{name: config[name] for name in kept if name in config}, **fields}, None


def _olmo_hybrid(weights: Weights, config: Config) -> tuple[Weights, Config, None]:
    """A norm has one name in every layer, and a convolution comes in three, as wide as queries, keys and values."""
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] * config["linear_value_head_dim"]
    for name in [name for name in weights if name.endswith("linear_attn.q_conv1d.weight")]:
        names = [name.replace("q_conv1d", f"{letter}_conv1d") for letter in "qkv"]
        whole = torch.cat([weights[part] for part in names])  # transformers writes thirds
        pieces = whole.split([keys, keys, values])
        weights.update({part: piece.contiguous() for part, piece in zip(names, pieces, strict=True)})
    norms = {r"attention_layer_norm": "input_layernorm", r"feedforward_layer_norm": "post_attention_layernorm"}
    return _renamed(weights, norms), config, None


LAYOUTS = {
    "olmo_hybrid": _olmo_hybrid,
    "exaone": _exaone,
    "orion": _orion,
    "telechat2": _telechat2,
    "teleflm": _teleflm,
    "pangu_embedded": _pangu_embedded,
    "chatglm": _chatglm,
    "lighton_ocr": _lighton_ocr,
    "qwen2_5_omni": _qwen2_5_omni,
    "qwen3_omni": _qwen3_omni,
    "longcat_flash": _longcat_flash,
    "internlm2": _internlm2,
    "internlm3": _internlm3,
    "minicpm": _minicpm,
    "cohere_window": _cohere_window,
    "axk1": _axk1,
}
