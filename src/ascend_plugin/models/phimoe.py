"""Phi-3.5-MoE with the bias of its output matrix."""

from __future__ import annotations

import torch
from vllm.model_executor.models import phimoe


class PhiMoEForCausalLM(phimoe.PhiMoEForCausalLM):
    """vLLM's class loads the bias of the output matrix and leaves it out of the logits."""

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[T, vocabulary]."""
        logits: torch.Tensor = self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)
        return logits
