"""Quantised checkpoints of tiny models, and the reference that has the same weights and quantises the same activations.

A scheme quantises the linear layers of a float model as the published tool does, writes what that tool writes, and
leaves in the reference the weights that the stored ones stand for. Where activations are quantised too, the reference
quantises them in fp32 before each product: the engine is then judged by rounding alone, not by what quantisation costs.

Imports torch: for the reference's process only (see `reference.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
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


def quantise(scheme: str, model: torch.nn.Module, texts: Iterable[list[int]]) -> Stored:
    """Quantise the model's linear layers in place and return what its checkpoint stores. Deterministic."""
    layers = [
        Layer(name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and not name.endswith("mlp.gate")
    ]
    _calibrate(model, layers, texts)
    with torch.no_grad():
        return SCHEMES[scheme](layers)


def rewrite(directory: Path, stored: Stored) -> None:
    """Turn a float checkpoint of transformers into the quantised one, in place."""
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


# ------------------------------------------------------------------------------------- int8 weights and activations


def int8_by_output(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric: int8 [out, in] and scales fp32 [out]."""
    scale = weight.float().abs().amax(dim=1) / 127
    return (weight.float() / scale.unsqueeze(1)).round().clamp(-128, 127).to(torch.int8), scale


def _quantised_inputs(module: torch.nn.Linear, transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
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
    for layer in layers:
        if layer.name.endswith(FLOAT_LAYER):
            kinds[f"{layer.name}.weight"] = "FLOAT"
            continue
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
        _quantised_inputs(module, lambda x, scale=scale, offset=offset: by_tensor(x, scale, offset))
    stored.files[MODELSLIM_DESCRIPTION] = kinds
    return stored


def modelslim_w8a8_dynamic(layers: list[Layer]) -> Stored:
    """ModelSlim's W8A8_DYNAMIC: activations by token."""
    stored, kinds = Stored(), {"model_quant_type": "W8A8_DYNAMIC"}
    for layer in layers:
        if layer.name.endswith(FLOAT_LAYER):
            kinds[f"{layer.name}.weight"] = "FLOAT"
            continue
        weight, scale = int8_by_output(layer.module.weight)
        column = scale.unsqueeze(1)
        for name, tensor in (("weight", weight), ("weight_scale", column), ("weight_offset", torch.zeros_like(column))):
            stored.tensors[f"{layer.name}.{name}"] = tensor
            kinds[f"{layer.name}.{name}"] = "W8A8_DYNAMIC"
        layer.module.weight.copy_(weight * column)
        _quantised_inputs(layer.module, by_token)
    stored.files[MODELSLIM_DESCRIPTION] = kinds
    return stored


def _compressed_tensors(layers: list[Layer], static: bool) -> Stored:
    """LLM Compressor's int8: weights by output; activations symmetric, by constants or by token."""
    stored = Stored()
    ignored = ["lm_head"]
    for layer in layers:
        if layer.name.endswith(FLOAT_LAYER):
            ignored.append(layer.name)
            continue
        weight, scale = int8_by_output(layer.module.weight)
        stored.tensors[f"{layer.name}.weight"] = weight
        stored.tensors[f"{layer.name}.weight_scale"] = scale.unsqueeze(1)
        layer.module.weight.copy_(weight * scale.unsqueeze(1))
        if static:
            input_scale = max(-layer.low, layer.high) / 127
            stored.tensors[f"{layer.name}.input_scale"] = torch.tensor([input_scale])
            _quantised_inputs(layer.module, lambda x, scale=input_scale: by_tensor(x, scale, 0.0))
        else:
            _quantised_inputs(layer.module, by_token)
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
        "ignore": ignored,
        "config_groups": {"group_0": group},
    }
    return stored


SCHEMES: dict[str, Callable[[list[Layer]], Stored]] = {
    "w8a8": modelslim_w8a8,
    "w8a8-dynamic": modelslim_w8a8_dynamic,
    "int8": lambda layers: _compressed_tensors(layers, static=True),
    "int8-dynamic": lambda layers: _compressed_tensors(layers, static=False),
}
