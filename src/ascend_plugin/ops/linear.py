"""Weights of linear layers in the layout that the chip's matrix unit reads."""

from __future__ import annotations

import torch
import torch_npu
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from ascend_plugin.chips import ChipSpec
from ascend_plugin.ops.formats import FRACTAL_NZ


def convert_weights(model: torch.nn.Module, chip: ChipSpec) -> int:
    """Cast the unquantised weights of linear layers to FRACTAL_NZ, one at a time; returns how many.

    A table that is looked up stays as it is; where it is the output matrix too (tied embeddings), the product gets a
    copy, or the chip would convert the whole table in every step. fp32 weights stay, and so do those with a dimension
    of one, which MatmulWeightNz rejects.
    """
    if chip.weight_format != "nz":
        return 0
    looked_up = {
        module.weight.data_ptr()
        for module in model.modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    converted = 0
    for module in model.modules():
        plain = isinstance(module, LinearBase) and isinstance(module.quant_method, UnquantizedLinearMethod)
        if not plain and not isinstance(module, ParallelLMHead):
            continue
        weight = getattr(module, "weight", None)
        if weight is not None and weight.data_ptr() not in looked_up and _fits(weight, chip):
            weight.data = torch_npu.npu_format_cast(weight.data, FRACTAL_NZ)
            converted += 1
    for head in _heads(model):
        if head.weight.data_ptr() in looked_up and _fits(head.weight, chip):
            head.quant_method = TiedHead(torch_npu.npu_format_cast(head.weight.data, FRACTAL_NZ))
            converted += 1
    return converted


class TiedHead(UnquantizedEmbeddingMethod):
    """Logits from a matrix of its own, [vocabulary, hidden] in FRACTAL_NZ, beside the table that is looked up."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, bias)


def _heads(model: torch.nn.Module) -> set[VocabParallelEmbedding]:
    """Unquantised output matrices, those that are the embedding module itself included."""
    named = model.named_modules(remove_duplicate=False)
    return {
        module
        for name, module in named
        if name.rpartition(".")[2] == "lm_head"
        and isinstance(module, VocabParallelEmbedding)
        and isinstance(module.quant_method, UnquantizedEmbeddingMethod)
    }


def _fits(weight: torch.Tensor, chip: ChipSpec) -> bool:
    return weight.dim() == 2 and weight.dtype == torch.float16 and min(weight.shape) >= chip.matmul_nz_min_dim
