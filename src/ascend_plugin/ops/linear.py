"""Weights of linear layers in the layout that the chip's matrix unit reads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch_npu
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from ascend_facts.chips import ChipSpec
from ascend_plugin.ops import weight_update
from ascend_plugin.ops.formats import FRACTAL_NZ, ND

LARGEST = 32768.0  # half of what float16 holds
PIECE_ROWS = 4096


def prepare_weights(model: torch.nn.Module, chip: ChipSpec) -> None:
    """Bring the weights of linear layers into the chip's layout, and the layers to multiply by plain tensors."""
    gains = {module: gain_of(module.weight, chip) for module in _plain_layers(model) if _is_rounded(module)}
    if chip.weight_format == "nz":
        _convert_weights(model, chip)
    for module in _plain_layers(model):
        weight = module.weight.data
        module.quant_method = RoundedLinear(weight, gains[module]) if module in gains else PlainLinear(weight)


def _plain_layers(model: torch.nn.Module) -> Iterator[LinearBase]:
    """Linear layers without quantization that hold a weight."""
    for module in model.modules():
        plain = isinstance(module, LinearBase) and isinstance(module.quant_method, UnquantizedLinearMethod)
        if plain and getattr(module, "weight", None) is not None:
            yield module


def _is_rounded(module: LinearBase) -> bool:
    """Whether the layer's activations are float32 and its weight is float16."""
    return module.params_dtype == torch.float32 and module.weight.dtype == torch.float16


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
    outputs = (module for module in model.modules() if isinstance(module, ParallelLMHead))
    for module in (*_plain_layers(model), *outputs):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.data_ptr() not in looked_up and _fits(weight, chip):
            weight.data = torch_npu.npu_format_cast(weight.data, FRACTAL_NZ)
            weight_update.load_by_parts(weight)
    for head in _heads(model):
        weight = head.weight.data
        if weight.dtype == torch.float32 and chip.rounds_float32_products:
            rounded = weight.to(torch.float16)
            head.quant_method = RoundedHead(torch_npu.npu_format_cast(rounded, FRACTAL_NZ), gain_of(rounded, chip))
            if weight.data_ptr() not in looked_up:
                head.weight.data = head.quant_method.weight
        elif weight.data_ptr() in looked_up and _fits(weight, chip):
            head.quant_method = tied = TiedHead(torch_npu.npu_format_cast(weight, FRACTAL_NZ))
            weight_update.load_twice(head.weight, partial(getattr, tied, "weight"))
        elif isinstance(head.quant_method, RoundedHead):  # loaded again, into the matrix that it has
            head.quant_method.gain = gain_of(weight, chip)


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
    """The same for float32 activations: products in float16, which is all that the cube has, sums in float32.

    gain: see gain_of.
    """

    def __init__(self, weight: torch.Tensor, gain: float | None) -> None:
        super().__init__(weight)
        self.gain = gain

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return rounded_product(x, self.weight, bias, self.gain)


class RoundedHead(TiedHead):
    """The same for the output matrix, which takes the place of the float32 one unless that is looked up."""

    def __init__(self, weight: torch.Tensor, gain: float | None) -> None:
        super().__init__(weight)
        self.gain = gain

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return rounded_product(x, self.weight, bias, self.gain)


def gain_of(weight: torch.Tensor, chip: ChipSpec) -> float | None:
    """By how much a product with weight [out, in] can exceed the largest of its inputs, at least 1.

    None where products come out in float32 and need no bound. Waits for the device: for load time.
    """
    if chip.forms.fp32_out_nz:
        return None
    if torch_npu.get_npu_format(weight.data) == FRACTAL_NZ:  # weights that were loaded anew
        weight = torch_npu.npu_format_cast(weight.data, ND)
    pieces = weight.data.split(PIECE_ROWS)  # a whole matrix in float32 may not fit beside the model
    return max(1.0, *(float(piece.float().abs().sum(dim=-1).amax()) for piece in pieces))


def rounded_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gain: float | None
) -> torch.Tensor:
    """x [..., in] float32 with weight [out, in] float16, as float32.

    float16 ends at 65504: a row of x that goes beyond half of that, or whose product might (see gain_of; None: products
    come out in float32), is multiplied at a smaller scale, so that nothing is cut off; any other row as it is. A scale
    costs no accuracy: the smallest normal float16 is 2e-9 of LARGEST, and a row's product is about 1e-4 of its bound.
    """
    shrink = (x.abs().amax(dim=-1, keepdim=True) * ((gain or 1.0) / LARGEST)).clamp_(min=1.0)
    rows = (x / shrink).to(torch.float16).view(-1, x.shape[-1])
    # Not linear(): torch_npu takes no weight in FRACTAL_NZ beside a float32 tensor.
    if gain is None:
        product = torch.mm(rows, weight.t(), out_dtype=torch.float32)
    else:
        product = torch.mm(rows, weight.t()).float()
    product = product.view(*x.shape[:-1], -1).mul_(shrink)
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
