"""What vLLM's layer of experts does to their sum and to their weights, where it gives wrong text silently.

The routed experts' factor multiplies their output in float16 too, where nothing makes up for leaving it out. There
vLLM divides the shared experts' output by the factor instead, and expects the decoder layer to divide its residual too.
Few decoder layers do (COMPENSATING); in the others the sum is wrong by the factor, silently (GLM-4.5, GLM-4.6,
Nemotron-H, Laguna with shared experts). A chip without bfloat16 runs every model in float16.
Source: vllm/model_executor/layers/fused_moe/runner/moe_runner.py, MoERunner._maybe_apply_routed_scale_to_output.

A weight that a checkpoint has beside its experts and that is of no expert, such as the bias of Laguna's choice, is
loaded: vLLM looks for experts' names only and lets it drop, and every token meets other experts.
Source: vllm/model_executor/layers/fused_moe/routed_experts.py, RoutedExperts.load_weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

# Decoder layers, by class name, that divide their residual by the factor in float16.
COMPENSATING = ("DeepseekV2DecoderLayer", "OpenPanguDecoderLayer")
# Those that divide it in vain: a norm over the experts' output takes its factor away, so the sum is wrong by it.
NORMED = ("AXK1DecoderLayer",)


OF_THE_CHOICE = "e_score_correction_bias"


class AscendMoERunner(MoERunner):
    is_compensated = False  # find_compensated() knows, once the model is whole

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterable[str]:
        """Names of the parameters that were loaded."""
        bias = getattr(self.routed_experts, OF_THE_CHOICE, None)
        found = []

        def of_experts() -> Iterator[tuple[str, torch.Tensor]]:
            for name, weight in weights:
                if name == OF_THE_CHOICE and isinstance(bias, nn.Parameter):
                    default_weight_loader(bias, weight)
                    found.append(f"routed_experts.{name}")
                else:
                    yield name, weight

        yield from super().load_weights(of_experts())
        yield from found

    def _maybe_apply_routed_scale_to_output(
        self, shared_output: torch.Tensor | None, fused_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self.is_compensated:
            return super()._maybe_apply_routed_scale_to_output(shared_output, fused_output)
        if self.routed_scaling_factor != 1.0:
            fused_output *= self.routed_scaling_factor
        return shared_output, fused_output


def find_compensated(model: nn.Module) -> None:
    """Tell the runners inside a compensating decoder layer that they are; let no layer divide in vain."""
    for layer in model.modules():
        names = {kind.__name__ for kind in type(layer).__mro__}
        if names & set(NORMED):
            layer.__dict__["routed_scaling_factor"] = 1.0  # what the layer itself divides by; its runner has its own
        if names & set(COMPENSATING):
            for module in layer.modules():
                if isinstance(module, AscendMoERunner):
                    module.is_compensated = True


def register() -> None:
    """Put it in the place of vLLM's. Can be repeated."""
    if MoERunner.__name__ not in op_registry_oot:
        MoERunner.register_oot(AscendMoERunner, name=MoERunner.__name__)
