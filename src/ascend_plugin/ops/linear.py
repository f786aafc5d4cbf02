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

from ascend_facts.chips import ChipSpec
from ascend_plugin.ops.formats import FRACTAL_NZ

LARGEST_OPERAND = 32768.0  # half of what float16 holds


def prepare_weights(model: torch.nn.Module, chip: ChipSpec) -> None:
    """Bring the weights of linear layers into the chip's layout, and the layers to multiply by plain tensors."""
    if chip.weight_format == "nz":
        _convert_weights(model, chip)
    for module in model.modules():
        plain = isinstance(module, LinearBase) and isinstance(module.quant_method, UnquantizedLinearMethod)
        if plain and getattr(module, "weight", None) is not None:
            rounded = module.params_dtype == torch.float32 and module.weight.dtype == torch.float16
            method = RoundedLinear if rounded else PlainLinear
            module.quant_method = method(module.weight.data)


def _convert_weights(model: torch.nn.Module, chip: ChipSpec) -> None:
    """Cast the unquantized weights of linear layers to FRACTAL_NZ, one at a time.

    A table that is looked up stays as it is; where it is the output matrix too (tied embeddings), the product gets a
    copy, or the chip would convert the whole table in every step. Weights with a dimension of one stay, because
    MatmulWeightNz rejects them. An output matrix in float32 becomes float16, as the product would make it every time.
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
        if weight is None or weight.data_ptr() in looked_up:
            continue
        if _fits(weight, chip):
            weight.data = torch_npu.npu_format_cast(weight.data, FRACTAL_NZ)
    for head in _heads(model):
        weight = head.weight.data
        if weight.dtype == torch.float32 and chip.rounds_float32_products:
            head.quant_method = RoundedHead(torch_npu.npu_format_cast(weight.to(torch.float16), FRACTAL_NZ))
            if weight.data_ptr() not in looked_up:
                head.weight.data = head.quant_method.weight
        elif weight.data_ptr() in looked_up and _fits(weight, chip):
            head.quant_method = TiedHead(torch_npu.npu_format_cast(weight, FRACTAL_NZ))


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


class RoundedLinear(PlainLinear):
    """The same for float32 activations: products in float16, which is all that the cube has, sums in float32."""

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return rounded_product(x, self.weight, bias)


class RoundedHead(TiedHead):
    """The same for the output matrix, which takes the place of the float32 one unless that is looked up."""

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return rounded_product(x, self.weight, bias)


def rounded_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., in] float32 with weight [out, in] float16, as float32: what aclnnMatmul makes of float32 on such a chip.

    float16 ends at 65504: a row of x that goes beyond half of that is multiplied at a smaller scale, so that nothing is
    cut off; any other row is multiplied as it is.
    """
    shrink = (x.abs().amax(dim=-1, keepdim=True) * (1 / LARGEST_OPERAND)).clamp_(min=1.0)
    rows = (x / shrink).to(torch.float16).view(-1, x.shape[-1])
    # Not linear(): torch_npu takes no weight in FRACTAL_NZ beside a float32 tensor.
    product = torch.mm(rows, weight.t(), out_dtype=torch.float32).view(*x.shape[:-1], -1).mul_(shrink)
    return product if bias is None else product.add_(bias)


def _heads(model: torch.nn.Module) -> set[VocabParallelEmbedding]:
    """Unquantized output matrices, those that are the embedding module itself included."""
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
