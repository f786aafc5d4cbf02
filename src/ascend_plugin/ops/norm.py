"""RMS normalization: vLLM's layers on Ascend operators."""

from __future__ import annotations

import torch
import torch_npu
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm


def _normalize(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, epsilon: float
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """x, plus the residual where there is one, over its root mean square, times weight; then the sum too."""
    if residual is None:
        return torch_npu.npu_rms_norm(x, weight, epsilon)[0]
    normalized, _, total = torch_npu.npu_add_rms_norm(x, residual, weight, epsilon)
    return normalized, total


class AscendRMSNorm(RMSNorm):
    """The operators take a weight of the input's dtype and normalize over its whole length; else torch's own."""

    def forward_oot(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        weight = self.weight
        if not self.has_weight or self.variance_size_override is not None or weight.dtype != x.dtype:
            return self.forward_native(x, residual)
        return _normalize(x, residual, weight, self.variance_epsilon)


class AscendGemmaRMSNorm(GemmaRMSNorm):
    """Gemma's multiplies by 1 + weight in float32: the operators where x is float32 as well, else torch's own."""

    def forward_oot(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if x.dtype != torch.float32:
            return self.forward_native(x, residual)
        return _normalize(x, residual, self.weight.float() + 1.0, self.variance_epsilon)


def register() -> None:
    """Put these in the place of vLLM's. Can be repeated."""
    for layer, ours in ((RMSNorm, AscendRMSNorm), (GemmaRMSNorm, AscendGemmaRMSNorm)):
        if layer.__name__ not in op_registry_oot:
            layer.register_oot(ours, name=layer.__name__)
