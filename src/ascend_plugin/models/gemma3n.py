"""Gemma 3n for text, with the embeddings that each layer has of its own."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models import gemma3n


class Gemma3nForCausalLM(gemma3n.Gemma3nForCausalLM):
    """vLLM's class waits for somebody to pass these, and only its multimodal class does.

    Text alone went without: an error of a seventh of the logits' spread, which bfloat16's noise hides in a tiny model.
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
