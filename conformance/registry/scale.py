"""A published configuration class's own defaults, scaled down to what a CPU runs in seconds.

What only speed depends on becomes small (layers, widths, experts, vocabulary); what a code path depends on stays:
head sizes, ranks, query heads a key head, norms, biases, windows, routing, kinds of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VOCABULARY = 384
LAYERS = 3
HEADS = 4
WIDTH = 256

SMALL: Mapping[str, int] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "intermediate_size": 512,
    "ffn_dim": 512,
    "ffn_hidden_size": 512,
    "intermediate_size_mlp": 512,
    "expert_ffn_hidden_size": 128,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 128,
    "shared_intermediate_size": 128,
    "prefix_dense_intermediate_size": 512,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 1024,
    "sliding_window": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "n_mamba_heads": 8,
}
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts", "moe_top_k")
NUMBER_OF_EXPERTS, CHOSEN_EXPERTS = 16, 4


def scaled(config_class: type, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as a dict; overrides come last and win."""
    default = config_class()
    small = {**_small(default), **_lists(default), **overrides}
    config = config_class(**{_own_name(config_class, name): value for name, value in small.items()})
    return {name: value for name, value in config.to_dict().items() if name not in ("transformers_version", "dtype")}


def _lists(default: Any) -> dict[str, list[Any]]:
    """Lists with an entry a layer, such as the kinds of layers, as long as there are layers now."""
    layers = getattr(default, "num_hidden_layers", None)
    found = {}
    for name, value in default.to_dict().items():
        if isinstance(value, list | tuple) and len(value) == layers and layers > LAYERS:
            found[name] = every_kind(list(value), LAYERS)
    return found


def _own_name(config_class: type, name: str) -> str:
    names: Mapping[str, str] = getattr(config_class, "attribute_map", {}) or {}
    return names.get(name, name)


def _small(default: Any) -> dict[str, Any]:
    def value_of(name: str) -> Any:
        return getattr(default, name, None)

    small = {name: value for name, value in SMALL.items() if isinstance(value_of(name), int)}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if hasattr(default, name):
            small[name] = SMALL[name]
    heads, keys = value_of("num_attention_heads"), value_of("num_key_value_heads")
    if isinstance(heads, int) and isinstance(keys, int):
        small["num_key_value_heads"] = HEADS if keys == heads else min(keys, 2)
    elif isinstance(heads, int) and hasattr(default, "num_key_value_heads"):
        small["num_key_value_heads"] = 2  # left open (Nemotron): as its releases have it, fewer than heads
    for name in EXPERTS:
        if isinstance(value_of(name), int) and value_of(name) > 1:
            small[name] = NUMBER_OF_EXPERTS
    for name in CHOSEN:
        if isinstance(value_of(name), int):
            small[name] = min(value_of(name), CHOSEN_EXPERTS)
    for name, most in (("n_group", 4), ("topk_group", 2), ("first_k_dense_replace", 1)):
        if isinstance(value_of(name), int):
            small[name] = min(value_of(name), most)
    return small


def every_kind(values: list[Any], length: int) -> list[Any]:
    """As many as length of a list with an entry a layer, in which each kind of entry is left."""
    kinds = [value for place, value in enumerate(values) if value not in values[:place]]
    if len(kinds) >= length:
        return kinds[:length]
    return [*values[: length - len(kinds)], *kinds]
