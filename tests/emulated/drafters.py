"""Drafters of a tiny reciter, each right about some tokens and wrong about others, by construction.

The reciter's residual stream points along one direction for each piece of its recital (conformance/tiny.py). A head
that reads it and turns each direction into the next one's foretells the token after the next, but not what follows the
recital's end. For the second draft a head is given its own hidden state, which EAGLE's `fc` turns again and EAGLE 3's
does not: there the second draft repeats the first, and is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from conformance.tiny import END_OF_TURN, TOOL_CALL_RECITAL, VOCABULARY, build_reciter

EXTRA_TOKENS = 37  # of a draft's smaller vocabulary: tokens that are never said


def build_drafting_reciter(folder: Path) -> Path:
    """A reciter of fewer pieces: as a draft model it is right until the last two."""
    return build_reciter(folder, TOOL_CALL_RECITAL[:-2], seed=3)


def build_eagle(folder: Path, reciter: Path, *, third: bool) -> Path:
    """An EAGLE or EAGLE 3 head in its published names, fp16, for vLLM's speculative_config."""
    target = json.loads((reciter / "config.json").read_text())
    weights = load_file(reciter / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLMEagle3" if third else "EagleLlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "num_hidden_layers": 1,
        **{
            name: target[name]
            for name in (
                *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
                *("vocab_size", "rms_norm_eps", "max_position_embeddings", "hidden_act"),
            )
        },
    }
    hidden = target["hidden_size"]
    said = list(range(VOCABULARY, VOCABULARY + len(TOOL_CALL_RECITAL)))
    turn = _turn(weights, [*said, END_OF_TURN])
    noise = _layer(config, width=2 * hidden if third else hidden)
    if third:
        kept = sorted({*said, END_OF_TURN, *range(100, 100 + EXTRA_TOKENS)})
        config |= {"draft_vocab_size": len(kept), "eagle_aux_hidden_state_layer_ids": [1, 2, 3]}
        head = {f"midlayer.{name}": weight for name, weight in noise.items()}
        head["fc.weight"] = torch.cat([torch.zeros(hidden, 2 * hidden), turn], dim=1)
        head["norm.weight"], head["midlayer.hidden_norm.weight"] = torch.ones(2, hidden).unbind()
        head["lm_head.weight"] = weights["lm_head.weight"][kept]
        head["d2t"] = torch.tensor(kept) - torch.arange(len(kept))
    else:
        head = {f"layers.0.{name}": weight for name, weight in noise.items() if "input_layernorm" not in name}
        head["fc.weight"] = torch.cat([torch.zeros(hidden, hidden), turn], dim=1)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    stored = {name: each.half() if each.is_floating_point() else each for name, each in head.items()}
    save_file({name: each.contiguous() for name, each in stored.items()}, folder / "model.safetensors")
    return folder


def _turn(weights: dict[str, torch.Tensor], said: list[int]) -> torch.Tensor:
    """[hidden, hidden]: what leads to a token of the recital becomes what leads to the one after it, but at its end."""
    leads = torch.nn.functional.normalize(weights["lm_head.weight"][said].float(), dim=1)
    first = torch.linalg.pinv(leads)  # [hidden, pieces]
    after = torch.cat([leads[1:], leads[:1].roll(3, dims=1)])
    return after.T @ first.T


def _layer(config: dict[str, Any], width: int) -> dict[str, torch.Tensor]:
    """A decoder layer whose attention and MLP add little noise; its attention reads `width` numbers."""
    generator = torch.Generator().manual_seed(5)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    shapes = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {}
    for name, (rows, columns) in shapes.items():
        scale = columns**-0.5 * (0.02 if name.endswith(("o_proj", "down_proj")) else 1.0)
        weights[f"{name}.weight"] = scale * torch.randn(rows, columns, generator=generator)
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{name}.weight"] = torch.ones(hidden)
    return weights
