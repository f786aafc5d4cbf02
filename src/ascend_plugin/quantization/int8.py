"""int8 products: weights of eight bits with a scale for each output, activations quantized by constants or by token.

The arithmetic is CANN's (documents of aclnnAscendQuantV3, aclnnDynamicQuantV2, aclnnQuantMatmulV5 and WeightNz):

    static    q = round(x / input_scale + input_offset);   y = (q @ W + int_bias) * scale
    dynamic   s = max|x| / 127 of each token, q = round(x / s);   y = (q @ W) * scale * s

Where the product is not known to be right with a scale for each token (the chip table's forms.token_scaled_products),
it is that of the static kind, and tokens are scaled behind it.
"""

from __future__ import annotations

import torch
import torch_npu

from ascend_facts.chips import ChipSpec
from ascend_plugin.ops.formats import FRACTAL_NZ

DYNAMIC_ALIGNMENT_310P = 32  # aclnnDynamicQuant's document: a token's width on Ascend 310P
HEADROOM = 128.0  # a power of two above the largest quantized value: before tokens are scaled, sums stay in float16


def stored(weight: torch.Tensor, chip: ChipSpec) -> torch.Tensor:
    """A [out, in] int8 weight in the layout that the chip's matrix unit reads. Raises ValueError for a width of one."""
    if chip.weight_format != "nz":
        return weight
    if min(weight.shape) < chip.matmul_nz_min_dim:
        raise ValueError(f"A quantized weight of {tuple(weight.shape)} does not run on {chip.soc_version}.")
    return torch_npu.npu_format_cast(weight, FRACTAL_NZ)


class StaticProduct:
    """Activations quantized by one scale and offset for the tensor, known from calibration.

    weight [out, in] int8 as `stored` gives it; scale [out] fp32 is input scale times weight scale; int_bias [out] int32
    holds what belongs to the sums (a folded bias, the offset's share) or is None; dtype is that of inputs and outputs.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        input_scale: torch.Tensor,
        input_offset: torch.Tensor | None,
        int_bias: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> None:
        self.weight = weight.t()
        self.int_bias = int_bias
        factor = (1.0 / input_scale.float()).to(dtype).reshape(1)
        # The chip takes the factor in the activations' dtype: results are scaled back by what it was rounded to.
        self.scale = _scale_of_results(scale / (factor.float() * input_scale.float()), dtype)
        # One for each input, as others run it on the silicon, although the documents take one for all.
        width = weight.shape[1]
        self.factor = factor.repeat(width)
        self.offset = None if input_offset is None else input_offset.to(dtype).reshape(1).repeat(width)
        self.dtype = dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        quantized = torch_npu.npu_quantize(x, self.factor, self.offset, torch.qint8, -1, False)
        return torch_npu.npu_quant_matmul(
            quantized, self.weight, self.scale, bias=self.int_bias, output_dtype=self.dtype
        )


class DynamicProduct:
    """Activations quantized by a scale for each token. weight [out, in] int8 as `stored` gives it, scale [out] fp32.

    Raises ValueError where a token's width does not suit the chip.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, chip: ChipSpec) -> None:
        if chip.weight_format == "nz" and weight.shape[1] % DYNAMIC_ALIGNMENT_310P:
            raise ValueError(
                f"Choose another --tensor-parallel-size: {chip.soc_version} quantizes tokens by their own scale only "
                f"in widths that are multiples of {DYNAMIC_ALIGNMENT_310P}, and a layer here has {weight.shape[1]}."
            )
        self.weight = weight.t()
        self.scales_tokens = chip.forms.token_scaled_products
        self.scale = scale if self.scales_tokens else _scale_of_results(scale / HEADROOM, dtype)
        self.dtype = dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        quantized, by_token = torch_npu.npu_dynamic_quant(x)
        if self.scales_tokens:
            return torch_npu.npu_quant_matmul(
                quantized, self.weight, self.scale, pertoken_scale=by_token, output_dtype=self.dtype
            )
        product = torch_npu.npu_quant_matmul(quantized, self.weight, self.scale, output_dtype=self.dtype)
        return product.mul_((by_token * HEADROOM).to(self.dtype).unsqueeze(-1))


def _scale_of_results(scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The scale [out] fp32 as products of that dtype take it: fp16 ones in the chip's 64 bits, bf16 ones as it is."""
    return torch_npu.npu_trans_quant_param(scale, round_mode=1) if dtype == torch.float16 else scale


def sums_of_outputs(weight: torch.Tensor) -> torch.Tensor:
    """Sum of each output's weights, [out] int32, of a [out, in] int8 weight that is not in a private layout yet."""
    return weight.to(torch.int32).sum(dim=1, dtype=torch.int32)
