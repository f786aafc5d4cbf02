"""The fields of a config.json in every spelling that published models use, checked for their kinds.

transformers, the authors' own code and Mistral's params.json name the same sizes differently; here each has one name.
A value of a wrong kind is an UnreadableConfig that names the field, whatever the file holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST_SIZE = 1 << 40  # no published size comes near it, and products of such sizes stay cheap

# The name used here, and what else files call it; the first that is there counts.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers", "decoder_layers"),
    "hidden_size": ("n_embd", "d_model", "dim", "model_dim"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "n_head_kv"),
    "head_dim": ("attention_head_dim", "kv_channels"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "hidden_dim", "decoder_ffn_dim"),
    "vocab_size": ("padded_vocab_size",),
    "max_position_embeddings": (
        "n_positions",
        "n_ctx",
        "max_sequence_length",
        "model_max_length",
        "seq_length",
        "max_seq_len",
        "max_target_positions",
    ),
    "experts": ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    "experts_per_token": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "moe_k",
        "top_k_experts",
        "moe_top_k",
    ),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "expert_width": ("moe_intermediate_size", "expert_ffn_hidden_size"),
    "shared_width": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ),
    "state_dtype": ("mamba_ssm_dtype", "mamba_ssm_cache_dtype"),
    "dtype": ("torch_dtype",),
}

# Where a model that also sees or hears keeps its language model.
TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")


class UnreadableConfig(ValueError):
    """config.json lacks a size that the arithmetic needs; the message names the field."""


class Fields:
    """Fields of one section of config.json, with a family's defaults behind them."""

    def __init__(self, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.fields = fields
        self.defaults = defaults or {}

    def raw(self, name: str) -> Any:
        """The value as it stands, in the first spelling that is there and not null; None if there is none."""
        for spelling in (name, *SPELLINGS.get(name, ())):
            value = self.fields.get(spelling)
            if value is not None:
                return value
        return self.defaults.get(name)

    def size(self, name: str) -> int:
        """A positive whole number. Raises UnreadableConfig."""
        value = self.optional_size(name)
        if not value:
            raise UnreadableConfig(
                f"config.json has no usable {name!r} ({_shown(self.raw(name))}): a positive whole number is needed"
            )
        return value

    def optional_size(self, name: str) -> int:
        """A whole number from 0, which is also what a field that is absent gives. Raises UnreadableConfig.

        A list of one number for each layer is read where all are the same.
        """
        value = self.raw(name)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if value is None or value is False:
            return 0
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_SIZE:
            raise UnreadableConfig(
                f"config.json has no usable {name!r} ({_shown(value)}): a positive whole number is needed"
            )
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise UnreadableConfig(f"config.json has no usable {name!r} ({_shown(value)}): true or false is needed")
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise UnreadableConfig(f"config.json has no usable {name!r} ({_shown(value)}): a word is needed")
        return value

    def items(self, name: str) -> Sequence[Any]:
        """A list; empty if there is none. Raises UnreadableConfig."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise UnreadableConfig(f"config.json has no usable {name!r} ({_shown(value)}): a list is needed")
        return value

    def section(self, name: str) -> Mapping[str, Any]:
        """A nested object; empty if there is none. Raises UnreadableConfig."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise UnreadableConfig(f"config.json has no usable {name!r} ({_shown(value)}): an object is needed")
        return value


def language_section(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the language model: the top of the file, and over it the section that describes it."""
    if not isinstance(config, Mapping):
        raise UnreadableConfig("config.json is not an object: download it again")
    merged = dict(config)
    for name in TEXT_SECTIONS:
        inner = Fields(config).section(name)
        if inner:
            merged |= {key: value for key, value in language_section(inner).items() if value is not None}
            break
    return merged


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
