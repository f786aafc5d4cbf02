"""Activations."""

from __future__ import annotations

import torch
import torch_npu
from torch import nn
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.activation import XIELU, SiluAndMul

from ascend_plugin import detection


class AscendSiluAndMul(SiluAndMul):
    """SwiGLU in one operator where the width allows it."""

    def forward_oot(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] // 2 % detection.current_chip().swiglu_alignment:
            return self.forward_native(x)
        return torch_npu.npu_swiglu(x)


class AscendXIELU(XIELU):
    """Apertus' activation with its two learned numbers in float32, which every chip has.

    vLLM makes them bfloat16 whatever the model's type; 310P has none, and mixed with float16 they would give float32.
    """

    alpha_p: nn.Parameter
    alpha_n: nn.Parameter
    beta: torch.Tensor
    eps: torch.Tensor

    def __init__(self) -> None:
        super().__init__(dtype=torch.float32)

    def forward_oot(self, x: torch.Tensor) -> torch.Tensor:
        beta, eps = self.beta.to(x.dtype), self.eps.to(x.dtype)
        positive = nn.functional.softplus(self.alpha_p).to(x.dtype)
        negative = (self.beta + nn.functional.softplus(self.alpha_n)).to(x.dtype)
        below = (torch.expm1(torch.minimum(x, eps)) - x) * negative
        return torch.where(x > 0, positive * x * x, below) + beta * x


def register() -> None:
    if "SiluAndMul" not in op_registry_oot:
        SiluAndMul.register_oot(AscendSiluAndMul)
    if "XIELU" not in op_registry_oot:
        XIELU.register_oot(AscendXIELU)
