"""Quantized checkpoints: which methods vLLM knows here, and which one a checkpoint needs, found without a flag.

ModelSlim's checkpoints are read by a configuration of our own (`modelslim`). The others are read by vLLM's
configurations, which ask a registry for a kernel of the platform: ours are registered here (`kernels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ascend_plugin.log import plugin_logger

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = plugin_logger(__name__)

MODELSLIM = "ascend"  # the name that users of `--quantization` know
DESCRIPTION = "quant_model_description.json"  # what ModelSlim writes beside the weights


def register() -> None:
    """Make ModelSlim's method known to vLLM. Light, can be repeated, and needed in every process."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, register_quantization_config

    from ascend_plugin.quantization.modelslim import ModelSlimConfig

    if MODELSLIM not in QUANTIZATION_METHODS:
        register_quantization_config(MODELSLIM)(ModelSlimConfig)


def register_kernels() -> None:
    """Offer our products to vLLM's own configurations (compressed-tensors, AWQ, GPTQ). Can be repeated."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms import PlatformEnum

    from ascend_plugin.quantization.kernels import AscendInt8Kernel
    from ascend_plugin.quantization.weight_only import AscendWeightOnlyKernel

    if AscendInt8Kernel not in linear._POSSIBLE_INT8_KERNELS.get(PlatformEnum.OOT, []):
        linear.register_linear_kernel(AscendInt8Kernel, PlatformEnum.OOT, "int8")
        linear.register_linear_kernel(AscendWeightOnlyKernel, PlatformEnum.OOT, "mp")


def detect(vllm_config: VllmConfig) -> None:
    """Choose ModelSlim's method for a checkpoint that ModelSlim made, unless the user chose one."""
    model = vllm_config.model_config
    if model is None or model.quantization is not None:
        return
    from vllm.transformers_utils.repo_utils import file_or_path_exists

    if not file_or_path_exists(model.model, DESCRIPTION, model.revision):
        return
    logger.info_once("%s has a %s: its weights are read as ModelSlim wrote them.", model.model, DESCRIPTION)
    model.quantization = MODELSLIM
    vllm_config.quant_config = type(vllm_config)._get_quantization_config(model, vllm_config.load_config)


def report_expansions() -> None:
    """Say in one line for each format what a model's weights take over its checkpoint, if they take more."""
    import sys

    module = sys.modules.get("ascend_plugin.quantization.dequantized")  # imported by the layers that need it
    if module is not None:
        module.report()
