"""Weights of linear layers in the layout that the chip's matrix unit reads."""

from __future__ import annotations

import torch
import torch_npu
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from ascend_plugin.chips import ChipSpec
from ascend_plugin.ops.formats import FRACTAL_NZ


def convert_weights(model: torch.nn.Module, chip: ChipSpec) -> int:
    """Cast the unquantised weights of linear layers to FRACTAL_NZ, one at a time; returns how many.

    A table that is also looked up (the embedding, tied or not) stays as it is, and so do fp32 weights and those with a
    dimension of one, which MatmulWeightNz rejects.
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
    return converted


def _fits(weight: torch.Tensor, chip: ChipSpec) -> bool:
    return weight.dim() == 2 and weight.dtype == torch.float16 and min(weight.shape) >= chip.matmul_nz_min_dim
