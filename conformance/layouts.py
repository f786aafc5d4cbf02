"""Checkpoint layouts of models whose mathematics transformers has under another name.

InternLM and MiniCPM ship their model as Python code beside the weights; transformers has no class for them, vLLM has.
The reference is then an equal model (Llama, Granite), and its checkpoint is renamed and repacked as the authors
publish it, with the configuration class that vLLM loads through `--trust-remote-code`. Others differ from what
transformers writes in a field or a weight. Sources: vLLM's loaders
(model_executor/models/internlm2.py, minicpm.py) and the published config.json files."""

from __future__ import annotations

import json
import re
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
    renamed = {}
    for name, weight in weights.items():
        if match := re.fullmatch(r"(model\.layers\.\d+)\.self_attn\.([qkv])_proj\.weight", name):
            if match[2] == "q":
                renamed[f"{match[1]}.attention.wqkv.weight"] = _pack_qkv(weights, match[1], config)
            continue
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = weight
    changes = {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False}
    return renamed, {**config, **changes}, "InternLM2Config"


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


LAYOUTS = {
    "internlm2": _internlm2,
    "internlm3": _internlm3,
    "minicpm": _minicpm,
    "cohere_window": _cohere_window,
    "axk1": _axk1,
}
