"""EAGLE 3 heads with a vocabulary of their own, whose tokens become the target's by a gather.

Upstream adds int64 token ids on the device, which the 310P faults on, and scatters over the target's vocabulary, which
falls back to the AI CPU (docs/silicon.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from vllm.model_executor.models.llama_eagle3 import Eagle3LlamaForCausalLM
from vllm.model_executor.models.qwen3_eagle3 import Eagle3Qwen3ForCausalLM


class DraftVocabulary:
    """Mixed in before vLLM's class."""

    config: Any
    lm_head: Any
    logits_processor: Any
    draft_id_to_target_id: Any
    draft_columns: torch.Tensor | None = None  # [target's vocabulary] int32, device

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Any:
        loaded = super().load_weights(weights)  # type: ignore[misc]
        offsets = self.draft_id_to_target_id
        if offsets is not None:
            columns = columns_of_targets(offsets.cpu(), self.config.vocab_size)
            self.draft_columns = columns.to(offsets.device)
        return loaded

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[tokens, target's vocabulary]; minus infinity for what the head cannot say."""
        logits = self.logits_processor(self.lm_head, hidden_states)
        if self.draft_columns is None or logits is None:
            return logits
        never = logits.new_full((len(logits), 1), float("-inf"))
        return torch.cat([logits, never], dim=1).index_select(1, self.draft_columns)


def columns_of_targets(offsets: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """[vocab_size] int32: where each token of the target stands in the head's logits; behind them where it does not.

    offsets [head's vocabulary]: how far the target's number of each token is from the head's.
    """
    columns = torch.full((vocab_size,), len(offsets), dtype=torch.int32)
    own = torch.arange(len(offsets))
    columns[own + offsets] = own.to(torch.int32)
    return columns


class AscendEagle3Llama(DraftVocabulary, Eagle3LlamaForCausalLM):
    """Of Llama's layers, which heads for Qwen and others have too."""


class AscendEagle3Qwen3(DraftVocabulary, Eagle3Qwen3ForCausalLM):
    """Of Qwen3's layers."""
