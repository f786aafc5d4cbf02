"""What a quantized linear layer keeps once its weights were loaded."""

from __future__ import annotations

import torch
from torch.nn.parameter import Parameter


def keep_only_weight(layer: torch.nn.Module, weight: torch.Tensor) -> None:
    """The layer keeps this weight and its bias; what was loaded beside them is spent, or held by a product."""
    for name in list(layer._parameters):
        if name != "bias":
            delattr(layer, name)
    layer.weight = Parameter(weight, requires_grad=False)
