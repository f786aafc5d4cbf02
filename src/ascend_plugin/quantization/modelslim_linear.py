"""Linear layers of ModelSlim checkpoints (see `modelslim` for the tensors that they hold)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import Parameter
from vllm.model_executor.layers.linear import (
    LinearMethodBase,
    RowParallelLinear,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.parameter import ChannelQuantScaleParameter, ModelWeightParameter, PerTensorScaleParameter

from ascend_plugin import detection
from ascend_plugin.quantization.errors import UnsupportedCheckpoint
from ascend_plugin.quantization.held import keep_only_weight
from ascend_plugin.quantization.int8 import DynamicProduct, StaticProduct, stored


class _Linear(LinearMethodBase):
    """A linear layer with an int8 weight and its scales: what both kinds load."""

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
        _register_weight(layer, outputs, input_size_per_partition, loader)
        self._register_activations(layer, output_partition_sizes, loader)

    def _register_activations(self, layer: torch.nn.Module, output_partition_sizes: list[int], loader: Any) -> None:
        """Register what the checkpoint has for the layer's inputs."""


@register_weight_loader_v2_supported_method
class StaticLinear(_Linear):
    """A linear layer of the kind W8A8."""

    def _register_activations(self, layer: torch.nn.Module, output_partition_sizes: list[int], loader: Any) -> None:
        outputs = sum(output_partition_sizes)
        for name in ("input_scale", "input_offset"):
            one_each = torch.empty(len(output_partition_sizes), dtype=torch.float32)
            layer.register_parameter(name, PerTensorScaleParameter(data=one_each, weight_loader=loader))
        _register_by_output(layer, "quant_bias", (outputs,), torch.int32, loader)
        _register_by_output(layer, "deq_scale", (outputs,), torch.float32, _reading_bits(loader))

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        scale, offset = layer.input_scale.data.cpu(), layer.input_offset.data.cpu()
        if not (scale == scale[0]).all() or not (offset == offset[0]).all():
            raise UnsupportedCheckpoint(
                f"The parts of {layer.prefix} quantize one input by different scales ({scale.tolist()}): calibrate "
                "them together."
            )
        # The bias holds the offset's share for the whole width: one rank adds it to the sum over ranks.
        adds_bias = not isinstance(layer, RowParallelLinear) or layer.tp_rank == 0
        weight = stored(layer.weight.data, detection.current_chip())
        self.product = StaticProduct(
            weight,
            layer.deq_scale.data,
            layer.input_scale.data[0],
            layer.input_offset.data[0],
            layer.quant_bias.data if adds_bias else None,
            self.dtype,
        )
        keep_only_weight(layer, weight)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return self.product(x)  # bias is within quant_bias


@register_weight_loader_v2_supported_method
class DynamicLinear(_Linear):
    """A linear layer of the kind W8A8_DYNAMIC."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        chip = detection.current_chip()
        weight = stored(layer.weight.data, chip)
        self.product = DynamicProduct(weight, layer.weight_scale.data.flatten(), self.dtype, chip)
        keep_only_weight(layer, weight)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = self.product(x)
        return output if bias is None else output + bias


def _register_weight(layer: torch.nn.Module, outputs: int, inputs: int, loader: Any) -> None:
    """The int8 weight, and the scale and offset that ModelSlim writes for every kind of quantized layer."""
    data = torch.empty(outputs, inputs, dtype=torch.int8)
    layer.register_parameter("weight", ModelWeightParameter(data=data, input_dim=1, output_dim=0, weight_loader=loader))
    for name in ("weight_scale", "weight_offset"):
        _register_by_output(layer, name, (outputs, 1), torch.float32, loader)


def _register_by_output(
    layer: torch.nn.Module, name: str, shape: tuple[int, ...], dtype: torch.dtype, loader: Any
) -> None:
    data = torch.empty(shape, dtype=dtype)
    layer.register_parameter(name, ChannelQuantScaleParameter(data=data, output_dim=0, weight_loader=loader))


def _reading_bits(loader: Any) -> Any:
    """A loader for scales that a checkpoint may store as the bits of a float32 in an int64."""

    def load(parameter: Parameter, loaded: torch.Tensor, *shard: Any) -> None:
        if loaded.dtype == torch.int64:
            loaded = loaded.to(torch.int32).view(torch.float32)
        loader(parameter, loaded, *shard)

    return load
