"""Layers that keep a state of fixed size instead of a cache: gated delta nets, Mamba 2, Kimi delta attention.

The window of the convolution is kept in the model's dtype, the recurrent matrix in one of its own, which vLLM takes
from the checkpoint (vllm/model_executor/models/config.py, mamba_ssm_dtype).
"""

from __future__ import annotations

from dataclasses import dataclass

from ascend_facts.config_fields import Fields, UnreadableConfig

STATE_KINDS = ("linear_attention", "mamba", "mamba2", "kda")
ATTENTION_KINDS = (
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
)
OTHER_KINDS = ("moe", "mlp")  # of hybrid models that list feed-forward parts as layers of their own


@dataclass(frozen=True, slots=True)
class Mixers:
    """How many layers mix tokens in which way, and what one recurrent layer holds."""

    attention: int
    recurrent: int = 0
    feed_forward: int = 0
    parameters: int = 0  # of one recurrent layer
    window_values: int = 0  # of one layer's convolution, for one sequence
    matrix_values: int = 0  # of one layer's recurrent state, for one sequence


def mixers(fields: Fields, layers: int) -> Mixers:
    """What the layers are. Raises UnreadableConfig for a kind that the arithmetic does not know."""
    pattern = fields.text("hybrid_override_pattern")
    if pattern:
        return _nemotron(fields, [{"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}.get(c, c) for c in pattern])
    if blocks := fields.items("layers_block_type"):
        return _nemotron(fields, list(blocks))
    if fields.section("linear_attn_config"):
        return _kimi(fields, layers)
    kinds = fields.items("layer_types")
    if unknown := [kind for kind in kinds if kind not in (*STATE_KINDS, *ATTENTION_KINDS)]:
        raise UnreadableConfig(f"config.json has layers of a kind that is not known here: {str(unknown[0])[:40]!r}")
    recurrent = sum(kind in STATE_KINDS for kind in kinds)
    if not kinds and (interval := fields.optional_size("full_attention_interval")):
        recurrent = layers - layers // interval
    _refuse_other_recurrences(fields)
    if not recurrent:
        return Mixers(layers, feed_forward=layers)
    if recurrent > layers:
        raise UnreadableConfig(f"config.json lists {recurrent} recurrent layers of {layers}: one is wrong")
    return Mixers(layers - recurrent, recurrent, layers, *_gated_delta_net(fields))


def _refuse_other_recurrences(fields: Fields) -> None:
    """Fields of recurrences that nothing here counts: better no plan than a plan of another model."""
    for name in ("state_size", "ssm_cfg", "time_mix_extra_dim", "mamba_d_state", "attn_type_list", "rnn_hidden_size"):
        value = fields.raw(name)
        uniform = isinstance(value, list) and value and all(item == 1 for item in value)  # MiniMax-M2: attention all
        if value is not None and not uniform:
            raise UnreadableConfig(f"config.json has {name!r}: the recurrent layers it describes are not counted here")


def _gated_delta_net(fields: Fields) -> tuple[int, int, int]:
    """(parameters, window, matrix) of a layer: q, k, v, output gate, decay and beta, convolution, norm and output."""
    hidden_size, value_heads = fields.size("hidden_size"), fields.size("linear_num_value_heads")
    key_width = fields.size("linear_key_head_dim")
    keys = fields.size("linear_num_key_heads") * key_width
    values = value_heads * fields.size("linear_value_head_dim")
    kernel = fields.size("linear_conv_kernel_dim")
    projections = hidden_size * (2 * keys + 2 * values) + hidden_size * 2 * value_heads + values * hidden_size
    convolution = (2 * keys + values) * kernel
    parameters = projections + convolution + 2 * value_heads + fields.size("linear_value_head_dim")
    return parameters, (2 * keys + values) * (kernel - 1), values * key_width


def _nemotron(fields: Fields, kinds: list[object]) -> Mixers:
    """Nemotron-H lists its parts one a layer: Mamba 2, attention, experts or a feed-forward."""
    unknown = [kind for kind in kinds if kind not in (*STATE_KINDS, *ATTENTION_KINDS, *OTHER_KINDS)]
    if unknown:
        raise UnreadableConfig(f"config.json has layers of a kind that is not known here: {str(unknown[0])[:40]!r}")
    recurrent = sum(kind in STATE_KINDS for kind in kinds)
    attention = sum(kind in ATTENTION_KINDS for kind in kinds)
    rest = len(kinds) - recurrent - attention
    return Mixers(attention, recurrent, rest, *(_mamba2(fields) if recurrent else (0, 0, 0)))


def _mamba2(fields: Fields) -> tuple[int, int, int]:
    """(parameters, window, matrix) of a Mamba 2 layer (arXiv 2405.21060): one projection in, convolution, one out."""
    hidden_size, heads = fields.size("hidden_size"), fields.size("mamba_num_heads")
    width, state = fields.size("mamba_head_dim"), fields.size("ssm_state_size")
    inner, kernel = heads * width, fields.size("conv_kernel")
    convolved = inner + 2 * fields.size("n_groups") * state
    bias = convolved if fields.flag("use_conv_bias", default=True) else 0
    parameters = hidden_size * (inner + convolved + heads) + convolved * kernel + bias
    parameters += 3 * heads + inner + inner * hidden_size
    return parameters, convolved * (kernel - 1), inner * state


def _kimi(fields: Fields, layers: int) -> Mixers:
    """Kimi delta attention (arXiv 2510.26692): q, k, v with convolutions, a decay and a gate of low rank each."""
    section = Fields(fields.section("linear_attn_config"))
    recurrent = len(section.items("kda_layers"))
    if not 0 < recurrent <= layers:
        raise UnreadableConfig(f"config.json lists {recurrent} delta-attention layers of {layers}: one is wrong")
    hidden_size, heads, width = fields.size("hidden_size"), section.size("num_heads"), section.size("head_dim")
    inner, kernel = heads * width, section.size("short_conv_kernel_size")
    low_rank = hidden_size * width + width * inner
    gate = hidden_size * inner if section.flag("use_full_rank_gate") else low_rank
    parameters = 4 * hidden_size * inner + 3 * inner * kernel + low_rank + gate + hidden_size * heads
    parameters += heads + inner + width
    return Mixers(layers - recurrent, recurrent, layers, parameters, 3 * inner * (kernel - 1), inner * width)
