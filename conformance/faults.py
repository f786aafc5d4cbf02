"""Deliberate faults: what a wrong implementation would do to a model, applied to what the engine is given.

The comparison proves something only if it fails when it should. Each fault changes the engine's copy of the
checkpoint (or its prompts) and leaves the reference alone; `python -m conformance --faults` then demands that the
check fails."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from conformance.prompts import CHUNK_TOKENS

Config = dict[str, Any]
Weights = dict[str, Any]  # torch tensors by name

WRONG_HISTORY = "wrong-history"  # changes the prompts instead of the checkpoint, as do those of media below
HISTORY = range(CHUNK_TOKENS - 32, CHUNK_TOKENS)  # tokens that the engine misreads: the last ones before a chunk's end


def faulty_checkpoint(checkpoint: Path, fault: str, target: Path) -> Path:
    """A copy of the checkpoint with the fault applied. Raises ValueError if the fault changes nothing in this model."""
    from safetensors.torch import load_file, save_file

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkpoint, target)
    config = json.loads((target / "config.json").read_text())
    weights = load_file(target / "model.safetensors")
    before = json.dumps(config), {name: weight.clone() for name, weight in weights.items()}
    FAULTS[fault](config, weights)
    same = before[0] == json.dumps(config) and all(weight.equal(before[1][name]) for name, weight in weights.items())
    if same:
        raise ValueError(f"The fault {fault!r} changes nothing in {checkpoint.name}.")
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def misread(prompt: list[int]) -> list[int]:
    """The prompt as an engine with a stale state or cache would know it: 32 tokens before position 256 are others."""
    if len(prompt) <= HISTORY.stop:
        return prompt
    return [*prompt[: HISTORY.start], *reversed(prompt[HISTORY.start : HISTORY.stop]), *prompt[HISTORY.stop :]]


def swap_media(prompt: Any) -> Any:
    """A prompt whose pictures, films or sounds have each other's contents at their own sizes; a lone one another's."""
    if isinstance(prompt, list):
        return prompt
    swapped = dict(prompt)
    for kind in ("image", "video", "audio"):
        seeds = [facts[-1] for facts in prompt.get(kind, ())]
        others = [*seeds[1:], seeds[0]] if len(seeds) > 1 else [seed + 7 for seed in seeds]
        if seeds:
            swapped[kind] = [[*facts[:-1], seed] for facts, seed in zip(prompt[kind], others, strict=True)]
    return swapped


def transpose_pictures(prompt: Any) -> Any:
    """A prompt whose pictures are read with rows for columns, see media.for_engine()."""
    return prompt if isinstance(prompt, list) else {**prompt, "transposed": True}


ON_PROMPTS: dict[str, Callable[[Any], Any]] = {"swapped-pictures": swap_media, "wrong-grid": transpose_pictures}


def _shifted_vision_positions(config: Config, weights: Weights) -> None:
    """A tower's learned positions one place off; where it has none, rows and columns in the places of M-RoPE's time."""
    learned = [
        name
        for name in weights
        if re.search(r"(vision|visual|tower)", name) and re.search(r"pos_embed|position_embedding", name)
    ]
    for name in learned:
        places = max(range(weights[name].dim() - 1), key=lambda dimension: weights[name].shape[dimension])
        weights[name].copy_(weights[name].roll(1, dims=places))
    for part in (config, config.get("text_config", {})):
        sections = (part.get("rope_parameters") or {}).get("mrope_section")
        if sections and not learned:
            part["rope_parameters"]["mrope_section"] = [sections[1], sections[0], sections[2]]


def _rope_theta(config: Config, weights: Weights) -> None:
    """The base that a loader falls back to when it overlooks the checkpoint's."""
    for rope in _ropes(config):
        rope["rope_theta"] = 10000.0 if rope["rope_theta"] != 10000.0 else 500000.0


def _rope_unscaled(config: Config, weights: Weights) -> None:
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_parameters"]["rope_theta"]}


def _rope_everywhere(config: Config, weights: Weights) -> None:
    config["no_rope_layers"] = [1] * config["num_hidden_layers"]


def _ropes(config: Config) -> list[Config]:
    rope = config.get("rope_parameters") or {}
    return [rope] if "rope_theta" in rope else [part for part in rope.values() if isinstance(part, dict)]


def _swapped_kv_heads(config: Config, weights: Weights) -> None:
    """Queries meet the keys of the wrong group: what a wrong grouped-query layout does."""
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for name, weight in weights.items():
        start = 0 if "k_proj.weight" in name else None
        if "qkv_proj.weight" in name:
            start = config["num_attention_heads"] * size
        if start is not None:
            first, second = weight[start : start + size].clone(), weight[start + size : start + 2 * size].clone()
            weight[start : start + size], weight[start + size : start + 2 * size] = second, first


def _flat_qk_norm(config: Config, weights: Weights) -> None:
    _fill(weights, r"[qk]_norm\.weight$", 1.0)


def _no_bias(config: Config, weights: Weights) -> None:
    _fill(weights, r"[qkv]_proj\.bias$", 0.0)


def _fill(weights: Weights, pattern: str, value: float) -> None:
    for name, weight in weights.items():
        if re.search(pattern, name):
            weight.fill_(value)


def _shifted_window(config: Config, weights: Weights) -> None:
    if config.get("sliding_window"):
        config["sliding_window"] -= 1


def _no_soft_cap(config: Config, weights: Weights) -> None:
    if config.get("attn_logit_softcapping"):
        config["attn_logit_softcapping"] = None


def _swapped_experts(config: Config, weights: Weights) -> None:
    for name in [name for name in weights if ".experts.0." in name]:
        other = name.replace(".experts.0.", ".experts.1.")
        weights[name], weights[other] = weights[other], weights[name]
    for name, weight in weights.items():  # packed: [experts, out, in]
        if re.search(r"experts\.(gate_up_proj|down_proj)$", name):
            weight[[0, 1]] = weight[[1, 0]].clone()


def _wrong_decay(config: Config, weights: Weights) -> None:
    for name, weight in weights.items():
        if name.endswith("A_log"):
            weight += 0.5


def _shifted_positions(config: Config, weights: Weights) -> None:
    for name, weight in weights.items():
        if name.endswith("embeddings.position_embeddings.weight"):
            weight.copy_(weight.roll(1, dims=0))


def _swapped_scales(config: Config, weights: Weights) -> None:
    """Each output of a quantized layer gets its neighbour's scale; a tensor's only scale grows by half."""
    for name, weight in weights.items():
        if re.search(r"\.(deq_scale|weight_scale|weight_scale_inv|scales)$", name):
            if weight.dim() == 0:
                weight.mul_(1.5)
            else:
                weight.copy_(weight.roll(1, dims=-1 if name.endswith("scales") else 0))


def _no_offset(config: Config, weights: Weights) -> None:
    _fill(weights, r"\.input_offset$", 0.0)


def _dropped_sink(config: Config, weights: Weights) -> None:
    """A sink so low that it takes no share of the attention."""
    for name, weight in weights.items():
        if re.search(r"sinks?(_bias)?$", name):
            weight.fill_(-30.0)


def _swapped_latent(config: Config, weights: Weights) -> None:
    """Each latent number is read as its neighbor, as by a cache that is a column off."""
    for name, weight in weights.items():
        if name.endswith("kv_b_proj.weight"):
            weight.copy_(weight.roll(1, dims=1))


def _shifted_convolution(config: Config, weights: Weights) -> None:
    """Taps one token late: what a stale window of the convolution does."""
    for name, weight in weights.items():
        if re.search(r"conv(1d)?\.weight$", name) and weight.dim() == 3:
            weight.copy_(weight.roll(1, dims=-1))


def _no_expert_bias(config: Config, weights: Weights) -> None:
    _fill(weights, r"experts\.(\d+\.)?\w+_(proj_)?bias$", 0.0)


def _unscaled_experts(config: Config, weights: Weights) -> None:
    """The factor of the routed experts left out."""
    if "routed_scaling_factor" in config:
        config["routed_scaling_factor"] = 1.0 if config["routed_scaling_factor"] != 1.0 else 2.5


FAULTS: dict[str, Callable[[Config, Weights], None]] = {
    "rope-theta": _rope_theta,
    "rope-unscaled": _rope_unscaled,
    "rope-everywhere": _rope_everywhere,
    "swapped-kv-heads": _swapped_kv_heads,
    "flat-qk-norm": _flat_qk_norm,
    "no-bias": _no_bias,
    "shifted-window": _shifted_window,
    "no-soft-cap": _no_soft_cap,
    "swapped-experts": _swapped_experts,
    "wrong-decay": _wrong_decay,
    "shifted-positions": _shifted_positions,
    "swapped-scales": _swapped_scales,
    "no-offset": _no_offset,
    "dropped-sink": _dropped_sink,
    "swapped-latent": _swapped_latent,
    "shifted-convolution": _shifted_convolution,
    "no-expert-bias": _no_expert_bias,
    "unscaled-experts": _unscaled_experts,
    "shifted-vision-positions": _shifted_vision_positions,
}


MEANINGS = {
    "rope-theta": "another base of the rotary embedding",
    "rope-unscaled": "rotary scaling left out",
    "rope-everywhere": "a rotary embedding in layers that have none",
    "swapped-kv-heads": "queries meet the keys of another group",
    "flat-qk-norm": "norms of queries and keys without their weights",
    "no-bias": "biases left out",
    "shifted-window": "a sliding window one token short",
    "no-soft-cap": "the cap on attention scores left out",
    "swapped-experts": "two experts in each other's place",
    "wrong-decay": "a state that is forgotten too fast",
    "shifted-positions": "position embeddings one place off",
    "swapped-scales": "each output's scale in its neighbour's place",
    "no-offset": "the offset of quantized activations left out",
    "dropped-sink": "attention sinks left out",
    "swapped-latent": "each number of the latent cache read as its neighbor",
    "shifted-convolution": "a convolution one token late: a stale window",
    "no-expert-bias": "the experts' biases left out",
    "unscaled-experts": "the factor of the routed experts left out",
    "swapped-pictures": "pictures, films or sounds in each other's place",
    "shifted-vision-positions": "the places of a picture's patches one off, or rows taken for time",
    "wrong-grid": "pictures read with rows for columns",
    WRONG_HISTORY: "the last 32 tokens before a chunk's end misread: a stale cache or state",
}


def undo_misreading(tokens: np.ndarray, prompt_length: int, truth: list[int]) -> np.ndarray:
    """The tokens of an answered sequence with the true prompt put back, for the reference to judge."""
    return np.concatenate([np.array(truth), tokens[prompt_length:]])


def main() -> None:
    """CHECKPOINT FAULT TARGET: in a process of its own, because it needs torch."""
    checkpoint, fault, target = sys.argv[1:]
    try:
        faulty_checkpoint(Path(checkpoint), fault, Path(target))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
