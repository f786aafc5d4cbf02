"""Checkpoints in a format that the chip cannot multiply in: their weights become plain ones while they are loaded.

A layer then is like any other, and so is its memory: what that costs over the checkpoint is counted and reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import Parameter
from vllm.model_executor.layers.linear import (
    LinearMethodBase,
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.quantization.utils.fp8_utils import create_fp8_scale_parameter, validate_fp8_block_shape
from vllm.model_executor.parameter import BlockQuantScaleParameter, ModelWeightParameter, PerTensorScaleParameter

from ascend_plugin import detection
from ascend_plugin.log import plugin_logger
from ascend_plugin.quantization.held import keep_only_weight

logger = plugin_logger(__name__)


STORED_BITS = {"fp8": 8, "int4": 4, "mxfp4": 4}


@dataclass
class Expansion:
    """Bytes of the expanded matrices of one format: as stored in the checkpoint, and as held by this chip."""

    matrices: int = 0
    stored_bytes: int = 0
    held_bytes: int = 0


EXPANSIONS: dict[tuple[str, str], Expansion] = defaultdict(Expansion)  # by (format stored, format held)


def count(stored_format: str, held_dtype: torch.dtype, weights: int) -> None:
    """A matrix of so many weights, stored in one of STORED_BITS, is held in held_dtype."""
    expansion = EXPANSIONS[stored_format, str(held_dtype).removeprefix("torch.")]
    expansion.matrices += 1
    expansion.stored_bytes += weights * STORED_BITS[stored_format] // 8
    expansion.held_bytes += weights * held_dtype.itemsize


def report() -> None:
    """One line for each format, after a model was loaded; the counts start again."""
    for (stored, held), expansion in EXPANSIONS.items():
        logger.info(
            "%d matrices stored in %s are held in %s, because %s has no %s product for them here: %s instead of %s.",
            expansion.matrices,
            stored,
            held,
            detection.current_chip().soc_version,
            stored,
            _readable(expansion.held_bytes),
            _readable(expansion.stored_bytes),
        )
    EXPANSIONS.clear()


def _readable(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"


def convert_to_unquantized(layer: torch.nn.Module, weight: torch.Tensor, device: torch.device) -> None:
    """Give the layer this [out, in] weight and vLLM's method for unquantized layers; all but its bias is dropped."""
    keep_only_weight(layer, weight.to(device))
    layer.quant_method = UnquantizedLinearMethod()


@register_weight_loader_v2_supported_method
class DequantizedFp8Linear(LinearMethodBase):
    """A linear layer of an fp8 checkpoint (e4m3; a scale for the tensor or for each block), held in the model's dtype.

    The bits are loaded as uint8, which every chip has, and made numbers on the host; activations are not quantized.
    """

    def __init__(self, quant_config: Any) -> None:
        self.block_size: list[int] | None = quant_config.weight_block_size
        self.has_input_scale = quant_config.activation_scheme == "static"

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        loader, outputs = attributes["weight_loader"], sum(output_partition_sizes)
        self.dtype = params_dtype
        layer.logical_widths = output_partition_sizes
        layer.weight_block_size = self.block_size
        data = torch.empty(outputs, input_size_per_partition, dtype=torch.uint8)
        weight = ModelWeightParameter(data=data, input_dim=1, output_dim=0, weight_loader=loading_bits(loader))
        layer.register_parameter("weight", weight)
        kind = PerTensorScaleParameter
        if self.block_size is not None:
            validate_fp8_block_shape(
                layer, input_size, output_size, input_size_per_partition, output_partition_sizes, self.block_size
            )
            kind = BlockQuantScaleParameter
        scale = create_fp8_scale_parameter(
            kind, output_partition_sizes, input_size_per_partition, self.block_size, loader
        )
        layer.register_parameter("weight_scale" if self.block_size is None else "weight_scale_inv", scale)
        if self.has_input_scale:
            one_each = torch.empty(len(output_partition_sizes), dtype=torch.float32)
            layer.register_parameter("input_scale", PerTensorScaleParameter(data=one_each, weight_loader=loader))

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        device = layer.weight.device
        numbers = layer.weight.data.cpu().view(torch.float8_e4m3fn).float()
        if self.block_size is None:
            widths = torch.tensor(layer.logical_widths)
            scale = torch.repeat_interleave(layer.weight_scale.data.cpu(), widths).unsqueeze(1)
        else:
            scale = whole_scale(layer.weight_scale_inv.data.cpu(), self.block_size, numbers.shape)
        weight = numbers.mul_(scale).to(self.dtype)
        count("fp8", self.dtype, weight.numel())
        convert_to_unquantized(layer, weight, device)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        raise RuntimeError("An fp8 layer is used before its weights were loaded.")


def whole_scale(scale: torch.Tensor, block_size: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Scales by block, [blocks of outputs, blocks of inputs], for every element of a matrix of that shape."""
    rows, columns = block_size
    return scale.repeat_interleave(rows, 0)[: shape[0]].repeat_interleave(columns, 1)[:, : shape[1]]


def loading_bits(loader: Any) -> Any:
    """A loader that takes fp8 numbers for the bytes that they are; of a linear layer, or of experts."""

    def load(param: Parameter, loaded_weight: torch.Tensor, *shard: Any, **options: Any) -> Any:
        return loader(param, loaded_weight.view(torch.uint8), *shard, **options)

    return load
