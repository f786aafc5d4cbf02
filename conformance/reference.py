"""The reference: transformers in fp32 on the CPU, and the rounding noise of a lower precision measured on the same
model.

A process of its own (`python -m conformance.reference JOB.json`): it must see no NPU, real or emulated, and
torch's fork-unsafe threads stay out of the engine. The job is a JSON object:

    architecture  what Architecture takes                seed     of the weights
    directory     where checkpoints are kept           sequences  lists of token ids; if empty, the checkpoint is made
    dtypes        those to measure noise in            output   .npz to write: "<dtype>.<sequence>" arrays
                  ("float16 products": float32 but for the operands of linear layers, as on a cube without float32)
    media         for each sequence the prompt with media that it begins with (media.py), or null (default: none)
    adapters      for each sequence the folder of its LoRA adapter, or null (default: none)

Arrays are [positions, vocabulary] log-probabilities, or [1, width] for a pooling model: what the engine is compared
with.
"""

from __future__ import annotations

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
sys.modules["torch_npu"] = None  # type: ignore[assignment] # transformers imports it wherever it is installed

from ascend_plugin.compat import torchvision

torchvision.apply()

import numpy as np
import torch

from conformance import cpu_job, media_reference
from conformance.adapters import merge
from conformance.architectures import Architecture
from conformance.checkpoint import build_reference_model, write_checkpoint
from conformance.media import Media

ENCODERS = ("bert", "gte")  # in the names of model types
ROUNDED_PRODUCTS = "float16 products"
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    ROUNDED_PRODUCTS: torch.float32,
}


def answer(
    architecture: Architecture,
    model: torch.nn.Module,
    tokens: list[int],
    prompt: Media | None = None,
    processor: Any = None,
    seen_whole: int = 0,
) -> torch.Tensor:
    """What the engine should answer for one sequence, [positions or 1, width], in fp32.

    seen_whole: so many tokens at its start see one another, if the model is a prefix LM.
    """
    if prompt is not None:
        return media_reference.logits(model, processor, prompt, tokens).float().log_softmax(dim=-1)
    kinds = {"token_type_ids": (torch.arange(len(tokens)) < seen_whole).long()[None]} if seen_whole else {}
    output = model(input_ids=torch.tensor([tokens]), **kinds)
    if architecture.task in ("classify", "generate"):
        logits: torch.Tensor = output.logits.float()
        return logits if architecture.task == "classify" else logits[0].log_softmax(dim=-1)
    if architecture.task == "token_classify":
        every: torch.Tensor = output.logits.float().flatten(1)
        return every
    # The token that stands for the text: the first of an encoder, the last of a causal model, which alone saw it all.
    position = 0 if any(name in architecture.config["model_type"] for name in ENCODERS) else -1
    return torch.nn.functional.normalize(output.last_hidden_state[:, position].float(), dim=-1)


def convert(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """The model's real numbers in another dtype; Module.to() would drop the imaginary part of complex ones."""
    model._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def round_products(model: torch.nn.Module) -> None:
    """Let every linear layer of a float32 model round what it multiplies to float16."""

    def rounded(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].half().float(), *inputs[1:])

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data.copy_(module.weight.data.half())
            module.register_forward_pre_hook(rounded)


def run(job: dict[str, Any]) -> None:
    architecture = Architecture(**job["architecture"])
    if not job["sequences"]:
        write_checkpoint(architecture, job["directory"], job["seed"])
        return
    results: dict[str, np.ndarray] = {}
    adapters = job.get("adapters") or [None] * len(job["sequences"])
    prompts = job.get("media") or [None] * len(job["sequences"])
    seen_whole = job.get("prompt_lengths") or [0] * len(job["sequences"])
    checkpoint = Path(job["directory"]) / architecture.checkpoint_name(job["seed"])
    processor = media_reference.read_processor(checkpoint) if architecture.media else None
    for adapter in dict.fromkeys(adapters):
        model = build_reference_model(architecture, job["seed"])
        if adapter is not None:
            merge(model, Path(adapter))
        for name in ["float32", *job["dtypes"]]:
            convert(model, DTYPES[name])
            if name == ROUNDED_PRODUCTS:
                round_products(model)
            for index, tokens in enumerate(job["sequences"]):
                if adapters[index] == adapter:
                    with torch.inference_mode():
                        found = answer(architecture, model, tokens, prompts[index], processor, seen_whole[index])
                        results[f"{name}.{index}"] = found.numpy()
    np.savez(job["output"], allow_pickle=False, **results)


def main() -> None:
    run(cpu_job.read())


if __name__ == "__main__":
    main()
