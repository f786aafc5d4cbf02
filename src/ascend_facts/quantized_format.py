"""How a checkpoint's weights are stored, and how they will lie in a chip's memory: every published format by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ascend_facts.config_fields import Fields

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec

# fp16+fp32: matrices in fp16, the embedding, the residual stream and all between products in fp32.
WeightFormat = Literal["fp16", "fp32", "fp16+fp32", "fp8", "w8a8", "w8a16", "w4a16", "w4a8", "w4a4"]
BYTES_OF_WEIGHT: Mapping[WeightFormat, float] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "fp16+fp32": 2.0,
    "fp8": 1.0,
    "w8a8": 1.0,
    "w8a16": 1.0,
    "w4a16": 0.5,
    "w4a8": 0.5,
    "w4a4": 0.5,
}
FOUR_BIT = ("awq", "gptq", "auto_awq", "auto_gptq", "awq_marlin", "gptq_marlin")
GPT_OSS = "mxfp4"  # as its checkpoints call it; other models' have other names
MODELSLIM_DESCRIPTION = "quant_model_description.json"  # beside the weights; config.json is silent about them
MODELSLIM_KINDS = ("W8A8", "W8A8_DYNAMIC")  # those that the plugin reads
MODELSLIM_KIND = re.compile(r"FLOAT|FAQUANT|C[48]|W(?:4|8|16)A(?:4|8|16)\w*")  # what a description may say of a tensor


@dataclass(frozen=True, slots=True)
class Quantization:
    """What config.json and ModelSlim's description say of the stored weights; `method` None is not quantized."""

    method: str | None = None
    bits: int = 16
    is_float: bool = False  # of fewer bits, but floating point: fp8, nvfp4, mxfp4
    activation_bits: int = 16
    kind: str = ""  # as the file calls the format
    group_size: int = 128  # weights that share a scale, where they have four bits
    plain_kinds: tuple[str, ...] = ()  # of Weights that the checkpoint leaves in sixteen bits


UNQUANTIZED = Quantization()
SCALE_BYTES = 2.5  # of a group of four-bit weights: a scale of sixteen bits and a zero of four
LISTS_OF_PLAIN = ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules")
PLAIN_NAMES = {"attention": ("self_attn", "attn"), "mlp": ("shared_expert", ".mlp.", "mlp\\.(gate")}


def read_quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> Quantization:
    """What the file says, at its top or in the language model's section. Raises UnreadableConfig for wrong kinds."""
    section = Fields(config).section("quantization_config") or Fields(text).section("quantization_config")
    if not section:
        return UNQUANTIZED
    stored = _method(Fields(section))
    return replace(stored, plain_kinds=_plain_kinds(Fields(section)), group_size=_group_size(Fields(section)))


def bytes_of_weight(weight_format: WeightFormat, group_size: int = 128) -> float:
    """Bytes of one weight, with its share of the scales where they weigh: those of groups of four-bit weights."""
    scales = SCALE_BYTES / group_size if weight_format.startswith("w4") else 0.0
    return BYTES_OF_WEIGHT[weight_format] + scales


def _plain_kinds(fields: Fields) -> tuple[str, ...]:
    """Kinds of weights that are left alone as a whole: named without a layer's number."""
    names = [name for field in LISTS_OF_PLAIN for name in fields.items(field) if isinstance(name, str)]
    whole = [name for name in names if not re.search(r"\.\d+\.", name)]
    found = [kind for kind, parts in PLAIN_NAMES.items() if any(part in name for name in whole for part in parts)]
    return tuple(found)


def _group_size(fields: Fields) -> int:
    size = fields.raw("group_size") or fields.raw("q_group_size")
    for group in fields.section("config_groups").values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        size = weights.get("group_size") if isinstance(weights, Mapping) else size
    return size if isinstance(size, int) and not isinstance(size, bool) and 8 <= size <= 1 << 20 else 128


def _method(fields: Fields) -> Quantization:
    method = fields.text("quant_method") or fields.text("quant_algo").lower()
    if method == "compressed-tensors":
        return _compressed(fields)
    if method == "ascend":
        kind = fields.text("model_quant_type", "W8A8").upper()
        bits = 4 if kind.startswith("W4") else 16 if kind.startswith("W16") else 8
        activations = 4 if "A4" in kind else 16 if "A16" in kind else 8
        return Quantization("ascend", bits, activation_bits=activations, kind=kind)
    if method in FOUR_BIT:
        bits = fields.optional_size("bits") or fields.optional_size("w_bit") or 4
        return Quantization(method, bits, kind=f"{method} of {bits} bits")
    if "mxfp4" in method or "nvfp4" in method:
        return Quantization(method, 4, is_float=True, kind=method)
    if "fp8" in method or method == "modelopt":
        algorithm = fields.text("quant_algo", "FP8").upper()
        bits = 4 if "FP4" in algorithm else 8
        return Quantization("fp8" if "fp8" in method else method, bits, True, 8, algorithm if bits == 4 else "fp8")
    if method == "bitsandbytes":
        return Quantization(method, 8 if fields.flag("load_in_8bit") else 4, kind=method)
    return Quantization(method or "unknown", 16, kind=method or "unknown")


def _compressed(fields: Fields) -> Quantization:
    """compressed-tensors names bits and type by groups; the first group stands for the model."""
    layout = fields.text("format", "int-quantized")
    bits, is_float, activation_bits = 8, "float" in layout, 16
    for group in fields.section("config_groups").values():
        if not isinstance(group, Mapping):
            continue
        inner = Fields(group)
        weights = Fields(inner.section("weights"))
        bits = weights.optional_size("num_bits") or bits
        is_float = weights.text("type", "float" if is_float else "int") == "float"
        activation_bits = Fields(inner.section("input_activations")).optional_size("num_bits") or 16
        break
    return Quantization("compressed-tensors", bits, is_float, activation_bits, layout)


def held_format(
    stored: Quantization, chip: ChipSpec, dtype: str = "float16", has_experts: bool = False
) -> WeightFormat:
    """How most weights will lie in the chip's memory; dtype is what the model runs in."""
    if dtype == "float32":
        return "fp16+fp32" if chip.rounds_float32_products else "fp32"
    if stored.method is None or stored.bits >= 16:
        return "fp16"
    if stored.is_float:
        # fp8 weights, and those of gpt-oss, are dequantized while they are loaded.
        return "fp16" if stored.bits == 8 or stored.kind == GPT_OSS else "w4a4"
    if stored.bits == 8:
        return "w8a8" if stored.activation_bits == 8 else "w8a16"
    if stored.activation_bits < 16:
        return "w4a8" if stored.activation_bits == 8 else "w4a4"
    if "int4" in chip.weight_only_dtypes:
        return "w4a16"
    return "fp16" if has_experts else "w8a8"  # a weight of four bits takes a byte here, and that of an expert two


def not_run(stored: Quantization, chip: ChipSpec) -> str:
    """Why the engine refuses a checkpoint of this format on this chip, with what to take instead; empty if it runs."""
    if stored.method is None:
        return ""
    if stored.method == "ascend" and stored.kind not in MODELSLIM_KINDS:
        return f"its weights are {stored.kind}, which is not read yet: take a W8A8 or W8A8_DYNAMIC checkpoint of it"
    if stored.method in ("unknown", "bitsandbytes", "modelopt") or stored.bits not in (4, 8):
        return f"weights quantized by {stored.kind} do not run: take the model unquantized, or as AWQ, GPTQ or W8A8"
    if stored.is_float and stored.bits == 4 and stored.kind != GPT_OSS:
        return f"weights of four-bit floats ({stored.kind}) do not run: take the model unquantized, or as AWQ or W8A8"
    if stored.bits == 8 and not stored.is_float and stored.activation_bits == 16:
        return f"eight-bit weights beside sixteen-bit activations ({stored.kind}) do not run: take a W8A8 checkpoint"
    if stored.bits == 4 and stored.activation_bits < 16:
        return f"four-bit weights beside quantized activations ({stored.kind}) do not run: take AWQ, GPTQ or W8A8"
    return ""
