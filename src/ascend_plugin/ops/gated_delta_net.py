"""vLLM's gated delta net layer (Qwen3-Next, Qwen3.5, OLMo Hybrid) on stock operators, with its state in vLLM's cache.

The mathematics is in gated_delta_rule.py, what recurrent layers have in common in recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.mamba.gdn.olmo_gdn_linear_attn import OlmoHybridGatedDeltaNetAttention
from vllm.model_executor.layers.mamba.gdn.qwen_gdn_linear_attn import QwenGatedDeltaNetAttention
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator

from ascend_plugin import detection
from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops.recurrent import Inputs, RecurrentLayer


class GatedDeltaRecurrence(RecurrentLayer):
    """The rule, for layers whose convolution gives [q | k | v]; beside it come log-decay and rate."""

    def advance(self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rule.step(*self._heads(mixed), *beside, state)

    def run_sequences(
        self, mixed: torch.Tensor, beside: Inputs, state: torch.Tensor, plan: rule.ChunkPlan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = detection.current_chip().forms.compensated_products
        return rule.chunked(*self._heads(mixed), *beside, state, plan, rounded)

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keys = self.key_dim // self.tp_size
        q, k, v = mixed.split([keys, keys, self.value_dim // self.tp_size], dim=-1)
        q, k = (rule.unit(x.unflatten(-1, (-1, self.head_k_dim))) for x in (q, k))
        return q, k, v.unflatten(-1, (-1, self.head_v_dim)).float()

    def get_state_shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of one slot; drafts need no wider window, because the state after each token has a slot of its own."""
        return MambaStateShapeCalculator.gated_delta_net_state_shape(
            self.tp_size,
            self.num_k_heads,
            self.num_v_heads,
            self.head_k_dim,
            self.head_v_dim,
            self.conv_kernel_size,
        )


class AscendGatedDeltaNet(GatedDeltaRecurrence, QwenGatedDeltaNetAttention):
    """The layer's projections are vLLM's; what lies between them is the rule in stock operators."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        qkvz, _ = self.in_proj_qkvz(hidden_states)
        ba, _ = self.in_proj_ba(hidden_states)
        qkv, z, b, a = self._split(qkvz, ba)
        outputs = torch.zeros_like(z)
        self.mix((qkv, *rule.gates(a, b, self.A_log, self.dt_bias)), outputs)
        return self._output_projection(outputs, z)

    def _split(
        self, qkvz: torch.Tensor, ba: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """[q | k | v] of all heads, the output gate z [tokens, heads, values], and the gates' projections."""
        if self.gqa_interleaved_layout:
            q, k, v, z, b, a = self.fix_query_key_value_ordering(qkvz, ba)
            return torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=-1), z, b, a
        width = (self.key_dim * 2 + self.value_dim) // self.tp_size
        b, a = self.split_ba(ba)
        return qkvz[:, :width], qkvz[:, width:].unflatten(-1, (-1, self.head_v_dim)), b, a


class AscendOlmoHybrid(GatedDeltaRecurrence, OlmoHybridGatedDeltaNetAttention):
    """OLMo Hybrid's, whose rate may reach 2 (a state that is overshot) and whose projections are split otherwise."""

    def __init__(self, config: Any, vllm_config: VllmConfig, prefix: str = "") -> None:
        """vLLM's makes its norm in the checkpoint's dtype, which may be bfloat16 on a chip that has none.

        And its convolution's loader asks which of the three it is given, which vLLM writes on the weight itself.
        """
        config = copy(config)
        config.dtype = vllm_config.model_config.dtype
        super().__init__(config, vllm_config, prefix)
        weight: Any = self.conv1d.weight
        weight.weight_loader = told_by_weight(weight.weight_loader)

    def forward(self, hidden_states: torch.Tensor, output: torch.Tensor) -> None:
        tokens = hidden_states.shape[0]
        qkv, gate = self.in_proj_qkvg(hidden_states)[0].tensor_split([self.conv_dim // self.tp_size], dim=-1)
        b, a = self.b_proj(hidden_states)[0], self.a_proj(hidden_states)[0]
        g, rate = rule.gates(a, b, self.A_log, self.dt_bias)
        if self.allow_neg_eigval:
            rate = 2.0 * rate
        mixed = hidden_states.new_zeros(tokens, self.num_v_heads // self.tp_size, self.head_v_dim)
        self.mix((qkv, g, rate), mixed)
        normed = self.o_norm(mixed.flatten(0, 1), gate.reshape(-1, self.head_v_dim))
        output[:tokens] = self.o_proj(normed.view(tokens, -1))[0]


def told_by_weight(load: Callable[..., None]) -> Callable[..., None]:
    """A loader of parts that takes the part's number from the weight where nobody passes it."""

    def loads(parameter: torch.Tensor, weight: torch.Tensor, part: int | None = None) -> None:
        load(parameter, weight, getattr(weight, "shard_id", None) if part is None else part)

    return loads


def register() -> None:
    """Put these in the place of vLLM's, for models that are made from now on. Can be repeated."""
    replaced = (QwenGatedDeltaNetAttention, AscendGatedDeltaNet), (OlmoHybridGatedDeltaNetAttention, AscendOlmoHybrid)
    for layer, ours in replaced:
        if layer.__name__ not in op_registry_oot:
            layer.register_oot(ours, name=layer.__name__)
