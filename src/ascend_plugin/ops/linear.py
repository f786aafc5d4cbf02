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


def prepare_weights(model: torch.nn.Module, chip: ChipSpec) -> None:
    """Bring the weights of linear layers into the chip's layout, and the layers to multiply by plain tensors."""
    if chip.weight_format == "nz":
        _convert_weights(model, chip)
    for module in model.modules():
        plain = isinstance(module, LinearBase) and isinstance(module.quant_method, UnquantizedLinearMethod)
        if plain and getattr(module, "weight", None) is not None:
            module.quant_method = PlainLinear(module.weight.data)


def _convert_weights(model: torch.nn.Module, chip: ChipSpec) -> None:
    """Cast the unquantised weights of linear layers to FRACTAL_NZ, one at a time.

    A table that is looked up stays as it is; where it is the output matrix too (tied embeddings), the product gets a
    copy, or the chip would convert the whole table in every step. fp32 weights stay, and so do those with a dimension
    of one, which MatmulWeightNz rejects.
    """
    looked_up = {
        module.weight.data_ptr()
        for module in model.modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    for module in model.modules():
        plain = isinstance(module, LinearBase) and isinstance(module.quant_method, UnquantizedLinearMethod)
        if not plain and not isinstance(module, ParallelLMHead):
            continue
        weight = getattr(module, "weight", None)
        if weight is not None and weight.data_ptr() not in looked_up and _fits(weight, chip):
            weight.data = torch_npu.npu_format_cast(weight.data, FRACTAL_NZ)
    for head in _heads(model):
        if head.weight.data_ptr() in looked_up and _fits(head.weight, chip):
            head.quant_method = TiedHead(torch_npu.npu_format_cast(head.weight.data, FRACTAL_NZ))


class PlainLinear(UnquantizedLinearMethod):
    """The product with a layer's weight, held as a plain tensor.

    vLLM's parameters are a class of tensors of their own, which torch asks for its version of every function.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, bias)


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
