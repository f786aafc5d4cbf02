"""What transformers' model says of a prompt with media: the reference, and whether the media change its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from conformance import media

LEAST_EFFECT = 0.25  # root mean square difference of log-probabilities that another picture must make


def read_processor(folder: Path) -> Any:
    return transformers.AutoProcessor.from_pretrained(folder)


def logits(
    model: torch.nn.Module, processor: Any, prompt: media.Media, tokens: list[int] | None = None
) -> torch.Tensor:
    """[tokens, vocabulary] for the prompt and what was generated after it (None: nothing).

    Raises ValueError if the tokens do not begin with the prompt as transformers' processor writes it.
    """
    inputs = media.inputs_for_reference(processor, prompt)
    parameter = next(model.parameters())
    inputs = {
        name: value.to(parameter.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    if getattr(model.config, "is_encoder_decoder", False):
        inputs = {name: value for name, value in inputs.items() if name in ("input_features", "attention_mask")}
        inputs["decoder_input_ids"] = torch.tensor([tokens or processor.tokenizer(prompt["text"]).input_ids])
    elif tokens is not None:
        inputs = _continued(inputs, tokens)
    output: torch.Tensor = model(**inputs).logits[0]
    return output


def _continued(inputs: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """The inputs with the generated tokens behind the prompt, which are ordinary ones."""
    prompt = inputs["input_ids"][0].tolist()
    if tokens[: len(prompt)] != prompt:
        place = next((i for i, pair in enumerate(zip(prompt, tokens, strict=False)) if pair[0] != pair[1]), len(tokens))
        raise ValueError(
            f"The engine read a prompt of other tokens than transformers, from place {place} of {len(prompt)} on: "
            f"{tokens[place : place + 8]} for {prompt[place : place + 8]}."
        )
    added = len(tokens) - len(prompt)
    result = dict(inputs)
    for name, value in inputs.items():
        if (
            isinstance(value, torch.Tensor)
            and value.shape == inputs["input_ids"].shape
            and not value.is_floating_point()
        ):
            fill = 1 if name == "attention_mask" else 0
            result[name] = torch.nn.functional.pad(value, (0, added), value=fill)
    result["input_ids"] = torch.tensor([tokens])
    return result


def effect(model: torch.nn.Module, processor: Any, prompts: list[media.Media]) -> float:
    """The least root mean square change of the log-probabilities behind the media when these become others."""
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            kinds = [kind for kind in ("image", "video", "audio") if prompt.get(kind)]
            for kind in kinds:
                other = {**prompt, kind: [[*facts[:-1], facts[-1] + 7] for facts in prompt[kind]]}
                first, second = (logits(model, processor, p)[-4:].float().log_softmax(-1) for p in (prompt, other))
                found.append((first - second).square().mean().sqrt().item())
    return min(found, default=0.0)


def complaint(least: float) -> str | None:
    """Why answers could be right without the media, or None."""
    if least >= LEAST_EFFECT:
        return None
    return f"another picture changes the answers by {least:.2f} only (at least {LEAST_EFFECT} wanted)"
