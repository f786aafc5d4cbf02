"""AWQ, GPTQ, fp8 and gpt-oss's MXFP4 with layers of ours, in the place of vLLM's configurations of these names.

vLLM's own ask whether CUDA's kernels run, and its experts have no registry of kernels for other platforms.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig, get_moe_quant_method
from vllm.model_executor.layers.quantization.fp8 import Fp8Config
from vllm.model_executor.layers.quantization.utils.gptq_utils import get_linear_quant_method
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from ascend_plugin.quantization.dequantized import DequantizedFp8Linear
from ascend_plugin.quantization.dequantized_experts import DequantizedFp8Experts
from ascend_plugin.quantization.mxfp4_experts import AscendMxfp4Config
from ascend_plugin.quantization.weight_only import AscendAwqLinear, AscendGptqLinear
from ascend_plugin.quantization.weight_only_experts import AwqExperts, GptqExperts


class AscendAwqConfig(AutoAWQConfig):
    """AWQ by our products."""

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        skipped = self.modules_to_not_convert
        if isinstance(layer, RoutedExperts):
            if is_layer_skipped(prefix, skipped, match_mode="substring"):
                return UnquantizedFusedMoEMethod(layer.moe_config)
            return AwqExperts(self, layer.moe_config)
        if not isinstance(layer, LinearBase) and not (isinstance(layer, ParallelLMHead) and self.lm_head_quantized):
            return None
        if is_layer_skipped(prefix, skipped, self.packed_modules_mapping, match_mode="substring"):
            return UnquantizedLinearMethod()
        return AscendAwqLinear(self)


class AscendGptqConfig(AutoGPTQConfig):
    """GPTQ by our products; vLLM's helpers read the rules for single layers."""

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        if isinstance(layer, RoutedExperts):
            return get_moe_quant_method(self, layer, prefix, GptqExperts)
        return get_linear_quant_method(self, layer, prefix, AscendGptqLinear)


class AscendFp8Config(Fp8Config):
    """fp8 in the model's dtype from loading on: vLLM's methods requantize with CUDA operators."""

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        linear, experts = isinstance(layer, LinearBase), isinstance(layer, RoutedExperts)
        stored_otherwise = experts and self.store_dtype == "mxfp4"
        if stored_otherwise or not (linear or experts) or self._is_skipped(prefix):
            return super().get_quant_method(layer, prefix)
        return DequantizedFp8Linear(self) if linear else DequantizedFp8Experts(self, layer.moe_config)  # type: ignore[arg-type]

    def _is_skipped(self, prefix: str) -> bool:
        return is_layer_skipped(
            prefix=prefix,
            ignored_layers=self.ignored_layers,
            fused_mapping=self.packed_modules_mapping,
            match_mode=self.ignored_layers_match_mode,
        )


CONFIGS = {
    AscendAwqConfig: ("awq", "awq_marlin", "auto_awq"),
    AscendGptqConfig: ("gptq", "gptq_marlin", "auto_gptq"),
    AscendFp8Config: ("fp8",),
    AscendMxfp4Config: ("gpt_oss_mxfp4",),
}
