"""The routed experts' factor multiplies their output in float16 too, where nothing makes up for leaving it out.

Reason: in float16 vLLM divides the shared experts' output by the factor instead, and expects the decoder layer to
divide its residual too. Few decoder layers do (COMPENSATED); in the others the sum is wrong by the factor, silently
(GLM-4.5, GLM-4.6, Nemotron-H, Laguna with shared experts). A chip without bfloat16 runs every model in float16.
Upstream: vllm/model_executor/layers/fused_moe/runner/moe_runner.py, MoERunner._maybe_apply_routed_scale_to_output.
Held by: tests/upstream/test_patches.py, tests/unit/plugin/test_routed_scale.py, the registry's rows of these models.
Exit: when the runner is told whether its decoder layer compensates.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

# Decoder layers, by class name, that divide their residual by the factor in float16.
COMPENSATED = ("DeepseekV2DecoderLayer", "AXK1DecoderLayer", "OpenPanguDecoderLayer")


def apply(model: nn.Module) -> None:
    for runner in _uncompensated(model, model):
        runner._maybe_apply_routed_scale_to_output = MethodType(scale_routed, runner)


def _uncompensated(module: nn.Module, root: nn.Module) -> list[Any]:
    """The runners below a module that no compensating decoder layer holds."""
    if module is not root and {kind.__name__ for kind in type(module).__mro__} & set(COMPENSATED):
        return []
    found = [module] if hasattr(type(module), "_maybe_apply_routed_scale_to_output") else []
    return found + [runner for child in module.children() for runner in _uncompensated(child, root)]


def scale_routed(
    runner: Any, shared_output: torch.Tensor | None, fused_output: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Has the arguments of MoERunner._maybe_apply_routed_scale_to_output."""
    if runner.routed_scaling_factor != 1.0:
        fused_output *= runner.routed_scaling_factor
    return shared_output, fused_output
