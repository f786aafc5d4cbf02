"""Weights of four bits, activations of sixteen: AWQ, GPTQ and compressed-tensors' packed integers.

    y = x @ ((w + offset) * scale)      w in [-8, 7]; a scale and an offset for each group of inputs and each output

(document of aclnnWeightQuantBatchMatmulV2). Atlas A2 and later multiply by weights packed eight to an int32; the
document gives Ascend 310P int8 weights only, where each weight takes a byte.
"""

from __future__ import annotations

from typing import Any

import torch
import torch_npu
from vllm.model_executor.kernels.linear import MPLinearKernel, MPLinearLayerConfig
from vllm.model_executor.layers.linear import register_weight_loader_v2_supported_method
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQMarlinLinearMethod, _convert_awq_to_standard_format
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQLinearMethod
from vllm.model_executor.parameter import permute_param_layout_
from vllm.scalar_type import scalar_types

from ascend_plugin import detection
from ascend_plugin.quantization import dequantized
from ascend_plugin.quantization.held import keep_only_weight

MIDDLE = 8  # of the unsigned values 0..15 that checkpoints store
GROUP_STEP = 32  # groups are multiples of this many inputs, and shorter than the whole width
PACKED = 8  # four-bit weights in an int32, the first in the lowest bits


class WeightOnlyLinear:
    """A weight's product; built from unsigned four-bit values on the host.

    values [in, out] uint8; scales [groups, out] and zeros [groups, out] (or None: all are 8), in the model's dtype.
    """

    def __init__(
        self,
        values: torch.Tensor,
        scales: torch.Tensor,
        zeros: torch.Tensor | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        groups = scales.shape[0]
        self.group_size = values.shape[0] // groups if groups > 1 else 0
        signed = values.to(torch.int8) - MIDDLE
        packs = "int4" in detection.current_chip().weight_only_dtypes
        self.weight = (pack(signed) if packs else signed).contiguous().to(device)
        by_group = (-1,) if groups == 1 else scales.shape
        self.scales = scales.to(dtype).reshape(by_group).contiguous().to(device)
        offsets = None if zeros is None else (MIDDLE - zeros.float()).to(dtype)
        self.offsets = None if offsets is None else offsets.reshape(by_group).contiguous().to(device)
        self.holds_bytes = not packs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch_npu.npu_weight_quant_batchmatmul(
            x, self.weight, self.scales, self.offsets, antiquant_group_size=self.group_size
        )


def pack(signed: torch.Tensor) -> torch.Tensor:
    """Signed four-bit values [.., in, out] (int8), eight outputs to an int32 [.., in, out / 8]."""
    nibbles = (signed.to(torch.int32) & 0xF).unflatten(-1, (-1, PACKED))
    packed = torch.zeros(nibbles.shape[:-1], dtype=torch.int32)
    for index in range(PACKED):
        packed |= nibbles[..., index] << (4 * index)
    return packed


def unpack(packed: torch.Tensor, dim: int) -> torch.Tensor:
    """Unsigned four-bit values (uint8) of an int32 tensor that packs eight of them along `dim` (>= 0); on the host."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    along = [-1 if i == dim + 1 else 1 for i in range(packed.dim() + 1)]
    values = (packed.cpu().unsqueeze(dim + 1) >> shifts.view(along)) & 0xF
    return values.flatten(dim, dim + 1).to(torch.uint8)


class AscendWeightOnlyKernel(MPLinearKernel):
    """Four-bit weights for vLLM's registry of kernels."""

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        if c.weight_type not in (scalar_types.uint4, scalar_types.uint4b8):
            return False, f"weights of type {c.weight_type} do not run on Ascend yet, only those of four bits"
        if c.partition_weight_shape[1] % PACKED:
            return False, f"a layer has {c.partition_weight_shape[1]} outputs, which is no multiple of {PACKED}"
        width = c.partition_weight_shape[0]
        if c.group_size not in (-1, width) and (c.group_size % GROUP_STEP or width % c.group_size):
            return (
                False,
                f"groups of {c.group_size} of {width} inputs: must be a multiple of {GROUP_STEP} that divides it",
            )
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        parameters: tuple[Any, ...] = self._get_weight_params(layer)  # zeros are there where the format has them
        packed, scales, zeros = parameters
        device = scales.device
        permute_param_layout_(packed, input_dim=0, output_dim=1, packed_dim=0)
        permute_param_layout_(scales, input_dim=0, output_dim=1)
        values, scale = unpack(packed.data, 0), scales.data.cpu()
        zero = None
        if self.config.zero_points:
            permute_param_layout_(zeros, input_dim=0, output_dim=1, packed_dim=1)
            zero = unpack(zeros.data, 1)
        self.product = WeightOnlyLinear(values, scale, zero, self.config.act_type, device)
        if self.product.holds_bytes:
            dequantized.count("int4", torch.int8, values.numel())
        keep_only_weight(layer, self.product.weight)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = self.product(x)
        return output if bias is None else output + bias


@register_weight_loader_v2_supported_method
class AscendAwqLinear(AutoAWQMarlinLinearMethod):
    """AWQ by the registry's kernel; its order of bits is put right on the host, as Ascend 310P cannot shift."""

    def __init__(self, quant_config: Any) -> None:
        """As the base class, which asks in addition whether this is a CUDA device."""
        self.quant_config = quant_config
        self.quant_type = quant_config.quant_type
        self.input_dtype = None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        for name in ("qweight", "qzeros"):
            parameter = layer.get_parameter(name)
            parameter.data = parameter.data.cpu()
        _convert_awq_to_standard_format(layer, "qweight", "qzeros", self.quant_config.quant_type.size_bits)
        self.kernel.process_weights_after_loading(layer)


@register_weight_loader_v2_supported_method
class AscendGptqLinear(AutoGPTQLinearMethod):
    """GPTQ by the registry's kernel."""

    def __init__(self, quant_config: Any) -> None:
        """As the base class, which asks in addition whether this is a CUDA device."""
        self.quant_config = quant_config
        self.quant_type = quant_config.quant_type
        self.input_dtype = None
