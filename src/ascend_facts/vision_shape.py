"""Parameters of the tower that turns pictures into embeddings, and of what joins it to the language model.

vLLM loads it with the model whether pictures come or not, so it counts as weights: whole on every chip unless vLLM
divides it, which it does for most towers; here it is counted as divided as vLLM's default does (weights, not data).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascend_facts.config_fields import Fields, UnreadableConfig

SECTIONS = ("vision_config", "vision_tower_config", "visual")
SPELLED = {
    "width": ("hidden_size", "embed_dim", "vt_hidden_size", "width"),
    "layers": ("depth", "num_hidden_layers", "vt_num_hidden_layers", "layers", "num_layers"),
    "inner": ("intermediate_size", "vt_intermediate_size"),
}


def vision_parameters(config: Mapping[str, Any], hidden_size: int) -> int:
    """Parameters of the tower and its projection into `hidden_size`; 0 for a model of text alone.

    Raises UnreadableConfig for a tower whose sizes the file does not give.
    """
    section = _section(config)
    if not section:
        return 0
    fields = Fields(section)
    kind = fields.text("model_type") or Fields(config).text("model_type")
    if kind in ("qwen2_vl",):
        return _qwen2(fields, hidden_size)
    if kind in ("qwen2_5_vl",):
        return _qwen2_5(fields, hidden_size)
    if kind.startswith(("qwen3_vl", "qwen3_5")):
        return _qwen3(fields)
    width, layers, inner = (_size(fields, name) for name in ("width", "layers", "inner"))
    patch = fields.optional_size("patch_size") or 14
    outer = Fields(config).text("model_type")
    if outer in ("mistral3", "pixtral"):
        tower = layers * (4 * width * width + 3 * width * inner + 2 * width) + 3 * patch**2 * width + width
        merger = 4 * width * width + width if outer == "mistral3" else 0
        return tower + merger + width * hidden_size + hidden_size**2
    tower = layers * _plain_layer(width, inner) + (3 * patch**2 + 1) * width
    if outer.startswith("gemma3"):
        side = (fields.optional_size("image_size") or 896) // patch
        return tower + side**2 * width + 2 * width + width * hidden_size + width
    if outer == "internvl_chat":
        joined = 4 * width
        scales = 2 * layers * width  # each branch of a layer has a scale
        return tower + scales + 1026 * width + 2 * joined + joined * hidden_size + hidden_size**2 + 2 * hidden_size
    if outer.startswith("gemma4"):
        gated = layers * (4 * width * width + 3 * width * inner + 4 * width)
        return (
            gated
            + (3 * patch**2 + 2 * (fields.optional_size("position_embedding_size") or 0)) * width
            + (width * hidden_size)
        )
    if outer.startswith("llama4"):
        out = fields.optional_size("vision_output_dim") or 4096
        return tower + 577 * width + 2 * width * inner // 4 + inner * out + out**2 + out * hidden_size
    return tower + 4 * width * 4 * width + 4 * width * hidden_size  # merged two by two, as most towers are


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    places = [config, Fields(config).section("thinker_config")]
    for place in places:
        for name in SECTIONS:
            if section := Fields(place).section(name):
                return section
    return {}


def _size(fields: Fields, name: str) -> int:
    for spelling in SPELLED[name]:
        if value := fields.optional_size(spelling):
            return value
    if name == "inner":
        ratio = fields.raw("mlp_ratio")
        if isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 < ratio < 100:
            return int(_size(fields, "width") * ratio)
    raise UnreadableConfig(f"config.json has a picture tower without a usable {SPELLED[name][0]!r}")


def _plain_layer(width: int, inner: int) -> int:
    """A layer of a vision transformer: attention and two matrices, all with biases, two layer norms."""
    return 4 * (width + 1) * width + (width + 1) * inner + (inner + 1) * width + 4 * width


def _patches(fields: Fields, width: int, default: int) -> int:
    patch, depth = fields.optional_size("patch_size") or default, fields.optional_size("temporal_patch_size") or 2
    return 3 * depth * patch**2 * width


def _merger(joined: int, out: int) -> int:
    return (joined + 1) * joined + (joined + 1) * out


def _qwen2(fields: Fields, hidden_size: int) -> int:
    """Qwen2-VL (transformers, modeling_qwen2_vl.py); its `hidden_size` is the language model's, `embed_dim` its own."""
    width, layers = fields.optional_size("embed_dim") or 1280, fields.optional_size("depth") or 32
    return (
        _patches(fields, width, 14)
        + layers * _plain_layer(width, 4 * width)
        + 2 * width
        + _merger(4 * width, hidden_size)
    )


def _qwen2_5(fields: Fields, hidden_size: int) -> int:
    """Qwen2.5-VL: gated layers with RMS norms."""
    width, layers = fields.optional_size("hidden_size") or 1280, fields.optional_size("depth") or 32
    inner = fields.optional_size("intermediate_size") or 3420
    layer = 4 * (width + 1) * width + 3 * width * inner + 2 * inner + width + 2 * width
    out = fields.optional_size("out_hidden_size") or hidden_size
    return _patches(fields, width, 14) + layers * layer + width + _merger(4 * width, out)


def _qwen3(fields: Fields) -> int:
    """Qwen3-VL and Qwen3.5: learned positions, a merger, and further mergers for the layers it taps."""
    width, layers, inner = (_size(fields, name) for name in ("width", "layers", "inner"))
    joined, out = 4 * width, fields.size("out_hidden_size")
    positions = fields.optional_size("num_position_embeddings") * width
    taps = len(fields.items("deepstack_visual_indexes"))
    mergers = _merger(joined, out) + 2 * width + taps * (_merger(joined, out) + 2 * joined)
    return _patches(fields, width, 16) + width + positions + layers * _plain_layer(width, inner) + mergers
