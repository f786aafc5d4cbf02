"""RMS normalisation: vLLM's layer, and implementations of the vllm.ir operators that other layers use."""

from __future__ import annotations

import torch
import torch_npu
from vllm import ir
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.layernorm import RMSNorm

PROVIDER = "ascend"


def _is_plain(x: torch.Tensor, weight: torch.Tensor | None, variance_size: int | None) -> bool:
    """The operators take a weight of the input's dtype and normalise over its whole length."""
    return weight is not None and variance_size is None and weight.dtype == x.dtype


@ir.ops.rms_norm.register_impl(
    PROVIDER, supports_args=lambda x, weight, epsilon, variance_size=None: _is_plain(x, weight, variance_size)
)
def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    return torch_npu.npu_rms_norm(x, weight, epsilon)[0]


@ir.ops.fused_add_rms_norm.register_impl(
    PROVIDER,
    supports_args=lambda x, x_residual, weight, epsilon, variance_size=None: _is_plain(x, weight, variance_size),
)
def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    normalised, _, total = torch_npu.npu_add_rms_norm(x, x_residual, weight, epsilon)
    return normalised, total


class AscendRMSNorm(RMSNorm):
    """vLLM's layer, straight to the operators: the way through vllm.ir costs the host as much as the launch."""

    def forward_oot(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        weight = self.weight
        if not self.has_weight or not _is_plain(x, weight, self.variance_size_override):
            return self.forward_native(x, residual)
        if residual is None:
            return torch_npu.npu_rms_norm(x, weight, self.variance_epsilon)[0]
        normalised, _, total = torch_npu.npu_add_rms_norm(x, residual, weight, self.variance_epsilon)
        return normalised, total


def register() -> None:
    if "RMSNorm" not in op_registry_oot:
        RMSNorm.register_oot(AscendRMSNorm)
