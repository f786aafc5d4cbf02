"""Our products as kernels of vLLM's registry, which its own quantization configurations choose from."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.kernels.linear import Int8ScaledMMLinearKernel, Int8ScaledMMLinearLayerConfig

from ascend_plugin import detection
from ascend_plugin.quantization.held import keep_only_weight
from ascend_plugin.quantization.int8 import DynamicProduct, StaticProduct, stored, sums_of_outputs


class AscendInt8Kernel(Int8ScaledMMLinearKernel):
    """compressed-tensors' int8: weights by tensor or channel, activations by tensor (constants) or by token."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        chip = detection.current_chip()
        return "int8" in chip.matmul_dtypes, f"{chip.soc_version} has no int8 products"

    @classmethod
    def can_implement(cls, c: Int8ScaledMMLinearLayerConfig) -> tuple[bool, str | None]:
        if not c.is_static_input_scheme and not c.input_symmetric:
            return False, "tokens are quantized by their own scale only symmetrically: use a symmetric checkpoint"
        return True, None

    def process_weights_after_loading(self, layer: Any) -> None:
        parameters: tuple[Any, ...] = self._get_layer_params(layer)  # which are there follows from the scheme
        weight, scale, input_scale, zero_point, _ = parameters
        chip, dtype = detection.current_chip(), layer.params_dtype
        by_output = scale.data.flatten().float()
        if not self.config.is_channelwise:
            widths = torch.tensor(layer.logical_widths, device=by_output.device)
            by_output = torch.repeat_interleave(by_output, widths)
        layout = stored(weight.data, chip)
        if self.config.is_static_input_scheme:
            shift = None if zero_point is None else zero_point.data.to(torch.int32)
            # (q - zero point) @ W = q @ W - zero point * sums of W; each rank takes off the share of its own width.
            int_bias = None if shift is None else -shift * sums_of_outputs(weight.data)
            product = StaticProduct(
                layout, by_output * input_scale.data.float(), input_scale.data, shift, int_bias, dtype
            )
            self.product: StaticProduct | DynamicProduct = product
        else:
            self.product = DynamicProduct(layout, by_output, dtype, chip)
        keep_only_weight(layer, layout)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = self.product(x)
        return output if bias is None else output + bias
