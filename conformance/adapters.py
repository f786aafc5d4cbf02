"""LoRA adapters for a conformance checkpoint, as PEFT writes them, and the reference's way to have them: merged.

A process of its own (`python -m conformance.adapters CHECKPOINT`), because it needs torch. Each adapter changes
every projection of every layer by about half of its weights' size, so that a missing or swapped one shows at once.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conformance.prompts import ADAPTERS

RANK, ALPHA = 8, 16.0
STRENGTH = 0.5  # of an adapter's change, relative to weights of unit gain
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapters(checkpoint: Path) -> None:
    """Write the seeded adapters, bf16, for the projections that the checkpoint has."""
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - no mapping
    named = {name: re.fullmatch(r"(.+\.(\w+_proj))\.weight", name) for name in shapes}
    projections = {name: match for name, match in named.items() if match and match[2] in PROJECTIONS}
    for number in range(1, ADAPTERS + 1):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for name, match in projections.items():
            outputs, inputs = shapes[name]
            a = torch.randn(RANK, inputs, generator=generator) / inputs**0.5
            b = torch.randn(outputs, RANK, generator=generator) * STRENGTH / RANK**0.5 / (ALPHA / RANK)
            tensors[f"base_model.model.{match[1]}.lora_A.weight"] = a.to(torch.bfloat16)
            tensors[f"base_model.model.{match[1]}.lora_B.weight"] = b.to(torch.bfloat16)
        folder = checkpoint / f"adapter-{number}"
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(PROJECTIONS)}
        (folder / "adapter_config.json").write_text(json.dumps({**config, "bias": "none"}, indent=2) + "\n")


def merge(model: torch.nn.Module, folder: Path) -> None:
    """Add an adapter's product to the weights of a model, in place: what LoRA is by definition."""
    tensors = load_file(folder / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, a in tensors.items():
            if name.endswith(".lora_A.weight"):
                b = tensors[name.replace("lora_A", "lora_B")]
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                parameters[target].add_((ALPHA / RANK) * (b.float() @ a.float()))


def main() -> None:
    write_adapters(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
