"""RMS normalisation: implementations of vllm.ir operators, imported for that effect."""

from __future__ import annotations

import torch
import torch_npu
from vllm import ir

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
