"""Models whose class in vLLM gives wrong text on any hardware, mended and registered in its place."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models import gemma3n
from vllm.model_executor.models.registry import ModelRegistry


class Gemma3nForCausalLM(gemma3n.Gemma3nForCausalLM):
    """Gemma 3n for text, with the embeddings that each layer has of its own.

    vLLM's class waits for somebody to pass them, and only its multimodal class does: text alone went without, an error
    of a seventh of the logits' spread, which the noise of bfloat16 hides in a tiny model.
    """

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        *,
        per_layer_inputs: torch.Tensor | None = None,
        **more: Any,
    ) -> Any:
        """vLLM's; per_layer_inputs [T, layers, size of a layer's embedding] are looked up where nobody passes them."""
        if per_layer_inputs is None and input_ids is not None:
            found = self.model.get_per_layer_input_embeddings(input_ids)
            per_layer_inputs = found.unflatten(-1, (self.config.num_hidden_layers, -1))
        return super().forward(input_ids, positions, per_layer_inputs=per_layer_inputs, **more)


def register() -> None:
    """Put these in the place of vLLM's, in a process that loads a model. Can be repeated."""
    ModelRegistry.register_model("Gemma3nForCausalLM", Gemma3nForCausalLM)
