"""Gated activations."""

from __future__ import annotations

import torch
import torch_npu
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.activation import SiluAndMul

from ascend_plugin import detection


class AscendSiluAndMul(SiluAndMul):
    """SwiGLU in one operator where the width allows it."""

    def forward_oot(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] // 2 % detection.current_chip().swiglu_alignment:
            return self.forward_native(x)
        return torch_npu.npu_swiglu(x)


def register() -> None:
    if "SiluAndMul" not in op_registry_oot:
        SiluAndMul.register_oot(AscendSiluAndMul)
