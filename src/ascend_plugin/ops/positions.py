"""Learned positions with an offset, which vLLM adds in int64: Ascend 310P faults in that, so they come in int32.

OPT and RoBERTa's kind (XLM-RoBERTa, BGE-M3 and its rerankers) add 2 to each position before they look it up.
Source: vllm/model_executor/models/opt.py and roberta.py; the fault: docs/strict.md, rule int64_add.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Modules, by class name, that add to the positions they are called with.
ADDING = ("OPTLearnedPositionalEmbedding", "RobertaEmbedding")


def prepare(model: nn.Module) -> None:
    """Give such modules int32 positions. Can be repeated."""
    for module in model.modules():
        if type(module).__name__ in ADDING and _narrow not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_narrow, with_kwargs=True)


def _narrow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_narrowed, args)), {name: _narrowed(value) for name, value in kwargs.items()}


def _narrowed(value: Any) -> Any:
    is_wide = isinstance(value, torch.Tensor) and value.dtype == torch.int64
    return value.to(torch.int32) if is_wide else value
