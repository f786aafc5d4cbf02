"""Parameters of feed-forward layers: dense ones, routed experts in every spelling, shared experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ascend_facts.config_fields import Fields, UnreadableConfig
from ascend_facts.families import Family

MOST_LAYERS = 10_000  # a list of layers is walked; more than this is a broken file


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Parameters of all feed-forward layers: `always` of every token, `routed` of those sent to an expert."""

    always: int
    routed: int = 0
    router: int = 0
    experts: int = 0
    experts_per_token: int = 0
    widest: int = 0  # the widest layer that one token meets, in values


def feed_forward(fields: Fields, family: Family, layers: int) -> FeedForward:
    """The feed-forward parts of `layers` layers. Raises UnreadableConfig."""
    experts = fields.optional_size("experts")
    if not experts:
        width = dense_width(fields)
        return FeedForward(layers * _dense(fields, family, width), widest=width)
    per_token = fields.optional_size("experts_per_token") or 1
    if per_token > experts:
        raise UnreadableConfig(f"config.json sends a token to {per_token} of {experts} experts: one is wrong")
    with_experts = expert_layers(fields, layers)
    hidden_size = fields.size("hidden_size")
    width = expert_width(fields)
    inner = fields.optional_size("moe_latent_size") or hidden_size  # Nemotron 3: experts in a narrower space
    latent = 2 * hidden_size * inner if inner != hidden_size else 0
    bias = experts * (2 * width + hidden_size) if fields.text("model_type") == "gpt_oss" else 0
    each = family.matrices * inner * width
    shared_width = _shared_width(fields, width)
    shared = family.matrices * hidden_size * shared_width + _shared_gate(fields, shared_width)
    always = with_experts * (shared + latent)
    beside = layers if fields.flag("enable_moe_block") else layers - with_experts  # Gemma 4: both in every layer
    meets = 0
    if beside > 0:
        meets = _dense_width_beside_experts(fields)
        always += beside * _dense(fields, family, meets)
    return FeedForward(
        always=always,
        routed=with_experts * (experts * each + bias),
        router=with_experts * (experts * hidden_size + _router_extras(fields, experts)),
        experts=experts,
        experts_per_token=per_token,
        widest=max(meets, per_token * width + shared_width),
    )


def dense_width(fields: Fields) -> int:
    """Width of a dense feed-forward layer: named, or four times the hidden size in the older families."""
    named = fields.optional_size("intermediate_size")
    if named:
        return named
    if fields.text("model_type") in ("gpt2", "gptj", "gpt_neo", "gpt_bigcode", "bloom", "falcon"):
        return 4 * fields.size("hidden_size")
    if fields.text("model_type") == "mpt":
        return (fields.optional_size("expansion_ratio") or 4) * fields.size("hidden_size")
    return fields.size("intermediate_size")


def _dense(fields: Fields, family: Family, width: int) -> int:
    hidden_size = fields.size("hidden_size")
    has_bias = family.mlp_bias or fields.flag("mlp_bias")
    has_bias = has_bias or (fields.flag("use_bias") and family.matrices == 2)
    bias = (family.matrices - 1) * width + hidden_size if has_bias else 0
    return family.matrices * hidden_size * width + bias


def expert_width(fields: Fields) -> int:
    """Width of one expert."""
    return fields.optional_size("expert_width") or fields.size("intermediate_size")


def _dense_width_beside_experts(fields: Fields) -> int:
    """Llama 4 names the dense layers' width apart: its intermediate_size is an expert's."""
    return fields.optional_size("intermediate_size_mlp") or fields.size("intermediate_size")


def _shared_width(fields: Fields, width: int) -> int:
    if fields.text("model_type").startswith("llama4"):
        return width
    count, named = fields.optional_size("shared_experts"), fields.optional_size("shared_width")
    if named:
        return named * max(1, count)
    return width * count


def _shared_gate(fields: Fields, shared_width: int) -> int:
    """Qwen's shared expert has a gate of one output."""
    qwen = fields.text("model_type").startswith("qwen")
    return fields.size("hidden_size") if qwen and shared_width else 0


def _router_extras(fields: Fields, experts: int) -> int:
    """A bias of the choice, where the model has one."""
    kind = fields.text("model_type")
    by_type = kind in ("glm4_moe", "gpt_oss", "minimax_m2", "ernie4_5_moe", "nemotron_h")
    return experts if by_type or fields.text("topk_method") == "noaux_tc" else 0


def expert_layers(fields: Fields, layers: int) -> int:
    """Layers that have routed experts, in every way in which files say so. Raises UnreadableConfig."""
    if layers > MOST_LAYERS:
        raise UnreadableConfig(f"config.json names {layers} layers: no published model has so many")
    kinds: Sequence[object] = fields.items("mlp_layer_types")
    if kinds:
        return min(layers, sum(kind == "sparse" for kind in kinds))
    listed = fields.raw("moe_layer_freq")
    if isinstance(listed, list):  # one number a layer
        return min(layers, sum(bool(item) for item in listed))
    chosen = set(range(layers))
    chosen -= {index for index in fields.items("mlp_only_layers") if isinstance(index, int)}
    first = fields.optional_size("first_k_dense_replace") or fields.optional_size("moe_layer_start_index")
    chosen -= set(range(min(first, layers)))
    if fields.optional_size("moe_layer_end_index"):
        chosen -= set(range(fields.optional_size("moe_layer_end_index") + 1, layers))
    for name in ("decoder_sparse_step", "interleave_moe_layer_step"):
        step = fields.optional_size(name)
        if step > 1:
            chosen = {index for index in chosen if (index + 1) % step == 0}
    step = fields.optional_size("moe_layer_freq")
    if step > 1:
        chosen = {index for index in chosen if index % step == 0}
    return len(chosen)
