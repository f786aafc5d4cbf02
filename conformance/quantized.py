"""Quantized checkpoints of tiny models, and the reference that has the same weights and quantizes the same activations.

A scheme quantizes the linear layers of a float model as the published tool does, writes what that tool writes, and
leaves in the reference the weights that the stored ones stand for. Where activations are quantized too, the reference
quantizes them in fp32 before each product: the engine is then judged by rounding alone, not by what quantization costs.

Imports torch: for the reference's process only (see `reference.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from conformance.low_bit_checkpoints import (
    FOUR_BIT_GROUP,
    FP8_BLOCK,
    FP8_LARGEST,
    Tensors,
    awq_matrix,
    fp8_matrix,
    gptq_matrix,
)

MODELSLIM_DESCRIPTION = "quant_model_description.json"
FLOAT_LAYER = "layers.0.mlp.down_proj"  # published checkpoints leave some layers as they are: each scheme keeps one


@dataclass
class Stored:
    """What a checkpoint has in the place of the float weights."""

    tensors: Tensors = field(default_factory=dict)  # by full name; `<layer>.weight` replaces the float one
    config: dict[str, Any] = field(default_factory=dict)  # added to config.json
    files: dict[str, Any] = field(default_factory=dict)  # JSON files beside it
    dropped: set[str] = field(default_factory=set)  # float tensors that the published checkpoint lacks


@dataclass
class Layer:
    """A linear layer of the float model and the range of its inputs over the calibration texts."""

    name: str
    module: torch.nn.Linear
    low: float = 0.0
    high: float = 0.0


def quantize(scheme: str, model: torch.nn.Module, texts: Iterable[list[int]]) -> Stored:
    """Quantize the model's linear layers in place and return what its checkpoint stores. Deterministic."""
    layers = [
        Layer(name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and not name.endswith("mlp.gate")
    ]
    _calibrate(model, layers, texts)
    with torch.no_grad():
        stored = SCHEMES[scheme](layers)
        for name, module in model.named_modules():
            if hasattr(module, "gate_up_proj") and hasattr(module, "num_experts"):
                EXPERT_SCHEMES[scheme](name, module, stored)
    return stored


def rewrite(directory: Path, stored: Stored) -> None:
    """Turn a float checkpoint of transformers into the quantized one, in place."""
    weights = load_file(directory / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if name not in stored.dropped} | stored.tensors
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **stored.config}, indent=2) + "\n")
    for name, content in stored.files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def _calibrate(model: torch.nn.Module, layers: list[Layer], texts: Iterable[list[int]]) -> None:
    def watch(layer: Layer) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            layer.low = min(layer.low, inputs[0].min().item())
            layer.high = max(layer.high, inputs[0].max().item())

        return hook

    handles = [layer.module.register_forward_pre_hook(watch(layer)) for layer in layers]
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([text]))
    for handle in handles:
        handle.remove()


def _split(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """The layers to quantize, and the names of those that stay float."""
    left = [layer.name for layer in layers if layer.name.endswith(FLOAT_LAYER)]
    return [layer for layer in layers if layer.name not in left], left


# ------------------------------------------------------------------------------------- int8 weights and activations


def int8_by_output(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric: int8 [out, in] and scales fp32 [out]."""
    scale = weight.float().abs().amax(dim=1) / 127
    return (weight.float() / scale.unsqueeze(1)).round().clamp(-128, 127).to(torch.int8), scale


def _quantized_inputs(module: torch.nn.Linear, transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The module sees its inputs as int8 would give them back; computed in fp32 whatever the model's precision."""
    module.register_forward_pre_hook(lambda _, inputs: (transform(inputs[0].float()).to(inputs[0].dtype),))


def by_tensor(x: torch.Tensor, scale: float, offset: float) -> torch.Tensor:
    return ((x / scale + offset).round().clamp(-128, 127) - offset) * scale


def by_token(x: torch.Tensor) -> torch.Tensor:
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-30)
    return (x / scale).round() * scale


def modelslim_w8a8(layers: list[Layer]) -> Stored:
    """ModelSlim's W8A8: activations by constants, with an offset that is folded into the bias of the sums."""
    stored, kinds = Stored(), {"model_quant_type": "W8A8"}
    quantized, left = _split(layers)
    kinds |= {f"{name}.weight": "FLOAT" for name in left}
    for layer in quantized:
        module = layer.module
        weight, weight_scale = int8_by_output(module.weight)
        scale = (layer.high - layer.low) / 255
        offset = float(round(-128 - layer.low / scale))
        product_scale = scale * weight_scale
        bias = torch.zeros_like(weight_scale) if module.bias is None else module.bias.float()
        folded = (bias / product_scale).round()
        sums = weight.to(torch.int32).sum(dim=1)
        tensors = {
            "weight": weight,
            "weight_scale": weight_scale.unsqueeze(1),
            "weight_offset": torch.zeros_like(weight_scale).unsqueeze(1),
            "input_scale": torch.tensor([scale]),
            "input_offset": torch.tensor([offset]),
            "deq_scale": product_scale.view(torch.int32).to(torch.int64),
            "quant_bias": (folded - offset * sums).to(torch.int32),
        }
        for name, tensor in tensors.items():
            stored.tensors[f"{layer.name}.{name}"] = tensor
            kinds[f"{layer.name}.{name}"] = "W8A8"
        module.weight.copy_(weight * weight_scale.unsqueeze(1))
        if module.bias is not None:
            module.bias.copy_(folded * product_scale)
        _quantized_inputs(module, partial(by_tensor, scale=scale, offset=offset))
    stored.files[MODELSLIM_DESCRIPTION] = kinds
    return stored


def modelslim_w8a8_dynamic(layers: list[Layer]) -> Stored:
    """ModelSlim's W8A8_DYNAMIC: activations by token."""
    stored, kinds = Stored(), {"model_quant_type": "W8A8_DYNAMIC"}
    quantized, left = _split(layers)
    kinds |= {f"{name}.weight": "FLOAT" for name in left}
    for layer in quantized:
        weight, scale = int8_by_output(layer.module.weight)
        column = scale.unsqueeze(1)
        for name, tensor in (("weight", weight), ("weight_scale", column), ("weight_offset", torch.zeros_like(column))):
            stored.tensors[f"{layer.name}.{name}"] = tensor
            kinds[f"{layer.name}.{name}"] = "W8A8_DYNAMIC"
        layer.module.weight.copy_(weight * column)
        _quantized_inputs(layer.module, by_token)
    stored.files[MODELSLIM_DESCRIPTION] = kinds
    return stored


def modelslim_experts(name: str, module: torch.nn.Module, stored: Stored) -> None:
    """W8A8_DYNAMIC of transformers' packed experts, gate_up_proj [experts, 2 * inner, hidden] and down_proj."""
    kinds = stored.files[MODELSLIM_DESCRIPTION]
    for parameter, parts in _projections(module):
        for expert, matrix in enumerate(parameter):
            weight, scale = int8_by_output(matrix)
            matrix.copy_(weight * scale.unsqueeze(1))
            pieces = zip(parts, weight.chunk(len(parts)), scale.unsqueeze(1).chunk(len(parts)), strict=True)
            for part, rows, column in pieces:
                tensors = {"weight": rows, "weight_scale": column, "weight_offset": torch.zeros_like(column)}
                for suffix, tensor in tensors.items():
                    full = f"{name}.{expert}.{part}.{suffix}"
                    stored.tensors[full] = tensor.contiguous()
                    kinds[full] = "W8A8_DYNAMIC"
    module.forward = lambda hidden, ids, weights: _experts_by_token(module, hidden, ids, weights)


def _experts_by_token(
    module: torch.nn.Module, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The experts' output with the inputs of both products quantized by token; all [tokens, ..]."""
    output = torch.zeros_like(hidden)
    gate_up_proj, down_proj = (parameter for parameter, _ in _projections(module))
    activation: Callable[[torch.Tensor], torch.Tensor] = module.act_fn  # type: ignore[assignment]  # Module.__getattr__
    for expert in range(len(gate_up_proj)):
        tokens, places = torch.where(ids == expert)
        if not len(tokens):
            continue
        seen = by_token(hidden[tokens].float()).to(hidden.dtype)
        gate, up = torch.nn.functional.linear(seen, gate_up_proj[expert]).chunk(2, dim=-1)
        inner = by_token((activation(gate) * up).float()).to(hidden.dtype)
        result = torch.nn.functional.linear(inner, down_proj[expert]) * weights[tokens, places, None]
        output.index_add_(0, tokens, result.to(output.dtype))
    return output


def _compressed_tensors(layers: list[Layer], static: bool) -> Stored:
    """LLM Compressor's int8: weights by output; activations symmetric, by constants or by token."""
    stored = Stored()
    quantized, left = _split(layers)
    for layer in quantized:
        weight, scale = int8_by_output(layer.module.weight)
        stored.tensors[f"{layer.name}.weight"] = weight
        stored.tensors[f"{layer.name}.weight_scale"] = scale.unsqueeze(1)
        layer.module.weight.copy_(weight * scale.unsqueeze(1))
        if static:
            input_scale = max(-layer.low, layer.high) / 127
            stored.tensors[f"{layer.name}.input_scale"] = torch.tensor([input_scale])
            _quantized_inputs(layer.module, partial(by_tensor, scale=input_scale, offset=0.0))
        else:
            _quantized_inputs(layer.module, by_token)
    int8 = {"num_bits": 8, "type": "int", "symmetric": True}
    activations = {**int8, "strategy": "tensor" if static else "token", "dynamic": not static}
    group = {
        "targets": ["Linear"],
        "weights": {**int8, "strategy": "channel", "dynamic": False},
        "input_activations": activations,
    }
    stored.config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head", *left],
        "config_groups": {"group_0": group},
    }
    return stored


# ------------------------------------------------------------------------------------------------ weights alone


def _fp8(layers: list[Layer], by_block: bool) -> Stored:
    """Weights as `fp8_matrix`; with one scale for a tensor there is one for its input too."""
    stored = Stored()
    quantized, left = _split(layers)
    for layer in quantized:
        _store(stored, layer.name, layer.module.weight, lambda weight: fp8_matrix(weight, by_block))
        if not by_block:
            stored.tensors[f"{layer.name}.input_scale"] = torch.tensor(max(-layer.low, layer.high) / FP8_LARGEST)
    stored.config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic" if by_block else "static",
        "modules_to_not_convert": ["lm_head", *left],
        **({"weight_block_size": [FP8_BLOCK, FP8_BLOCK]} if by_block else {}),
    }
    return stored


def _store(
    stored: Stored, name: str, weight: torch.Tensor, scheme: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
) -> None:
    """Store a layer's [out, in] weight by a scheme, and put what that means in its place."""
    tensors, numbers = scheme(weight)
    stored.tensors |= {f"{name}.{suffix}": tensor.contiguous() for suffix, tensor in tensors.items()}
    if "weight" not in tensors:
        stored.dropped.add(f"{name}.weight")
    weight.copy_(numbers)


def awq(layers: list[Layer]) -> Stored:
    stored = Stored()
    for layer in _split(layers)[0]:
        _store(stored, layer.name, layer.module.weight, awq_matrix)
    stored.config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": FOUR_BIT_GROUP,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": [FLOAT_LAYER],
    }
    return stored


def gptq(layers: list[Layer]) -> Stored:
    stored = Stored()
    for layer in _split(layers)[0]:
        _store(stored, layer.name, layer.module.weight, gptq_matrix)
    stored.config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": FOUR_BIT_GROUP,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
    }
    return stored


def weight_only_experts(
    scheme: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]],
) -> Callable[[str, torch.nn.Module, Stored], None]:
    """Experts stored matrix by matrix, as linear layers are; the router stays float."""

    def store(name: str, module: torch.nn.Module, stored: Stored) -> None:
        for parameter, parts in _projections(module):
            for expert, matrix in enumerate(parameter):
                for part, rows in zip(parts, matrix.chunk(len(parts)), strict=True):
                    _store(stored, f"{name}.{expert}.{part}", rows, scheme)
        left = stored.config["quantization_config"].get("modules_to_not_convert")
        if left is not None:
            left.append(name.replace("experts", "gate"))

    return store


def _projections(module: torch.nn.Module) -> list[tuple[torch.Tensor, tuple[str, ...]]]:
    """transformers' packed experts, [experts, out, in], with the names of the matrices that lie in each."""
    names: list[tuple[str, tuple[str, ...]]] = [
        ("gate_up_proj", ("gate_proj", "up_proj")),
        ("down_proj", ("down_proj",)),
    ]
    return [(module.get_parameter(name), parts) for name, parts in names]


EXPERT_SCHEMES: dict[str, Callable[[str, torch.nn.Module, Stored], None]] = {
    "w8a8-dynamic": modelslim_experts,
    "fp8-block": weight_only_experts(lambda weight: fp8_matrix(weight, by_block=True)),
    "awq": weight_only_experts(awq_matrix),
    "gptq": weight_only_experts(gptq_matrix),
}

SCHEMES: dict[str, Callable[[list[Layer]], Stored]] = {
    "w8a8": modelslim_w8a8,
    "w8a8-dynamic": modelslim_w8a8_dynamic,
    "int8": lambda layers: _compressed_tensors(layers, static=True),
    "int8-dynamic": lambda layers: _compressed_tensors(layers, static=False),
    "fp8-block": lambda layers: _fp8(layers, by_block=True),
    "fp8-tensor": lambda layers: _fp8(layers, by_block=False),
    "awq": awq,
    "gptq": gptq,
}
