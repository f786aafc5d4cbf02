"""float32 models where the cube multiplies float16 and nothing wider: weights of linear layers are held in float16.

The operators would round them in every product, and in float32 they take twice the memory, while they are loaded too.
Results are the same (see ops.linear.rounded_product).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.linear import (
    LinearBase,
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from ascend_plugin.quantization.names import ROUNDED


class RoundedConfig(QuantizationConfig):
    """Chosen for such a model by configuration.apply_defaults; there is nothing to read from the checkpoint."""

    @classmethod
    def get_name(cls) -> str:  # type: ignore[override]  # the base class lists names; ours is registered
        return ROUNDED

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return [torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RoundedConfig:
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> UnquantizedLinearMethod | None:
        return Float16Weights() if isinstance(layer, LinearBase) else None


@register_weight_loader_v2_supported_method
class Float16Weights(UnquantizedLinearMethod):
    """vLLM's method with weights in float16; compat.linear_methods puts the product in once they are loaded."""

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        sizes = input_size_per_partition, output_partition_sizes, input_size, output_size
        super().create_weights(layer, *sizes, torch.float16, **extra_weight_attrs)
