"""Quantized checkpoints: which methods vLLM knows here, and which one a checkpoint needs, found without a flag.

ModelSlim's checkpoints are read by a configuration of our own (`modelslim`). AWQ, GPTQ and fp8 are read by
configurations that take the place of vLLM's (`configs`), compressed-tensors by vLLM's, which asks a registry for a
kernel of the platform: ours are registered here (`kernels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ascend_facts.quantized_format import MODELSLIM_DESCRIPTION
from ascend_plugin.log import plugin_logger
from ascend_plugin.quantization.names import MODELSLIM, ROUNDED

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = plugin_logger(__name__)


def register() -> None:
    """Make ModelSlim's method known to vLLM. Light, can be repeated, and needed in every process."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, register_quantization_config

    from ascend_plugin.quantization.modelslim import ModelSlimConfig

    if MODELSLIM not in QUANTIZATION_METHODS:
        register_quantization_config(MODELSLIM)(ModelSlimConfig)


def register_layers() -> None:
    """Put our configurations in the place of vLLM's, and our products into its registry. Can be repeated.

    Imports every layer of them: for workers, and for front ends of a quantized model.
    """
    from vllm.model_executor.layers.quantization import register_quantization_config

    from ascend_plugin.quantization.configs import CONFIGS
    from ascend_plugin.quantization.rounded import RoundedConfig

    register_quantization_config(ROUNDED)(RoundedConfig)
    for config, names in CONFIGS.items():
        for name in names:
            register_quantization_config(name)(config)
    register_kernels()


def register_kernels() -> None:
    """Offer our products to the registry that layers of compressed-tensors, AWQ and GPTQ choose from."""
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

    if not file_or_path_exists(model.model, MODELSLIM_DESCRIPTION, model.revision):
        return
    logger.info_once("%s has a %s: its weights are read as ModelSlim wrote them.", model.model, MODELSLIM_DESCRIPTION)
    _choose(MODELSLIM, vllm_config)


def round_float32(vllm_config: VllmConfig) -> None:
    """Hold the weights of a float32 model's linear layers in float16, on a chip that would round them anyway."""
    register_layers()
    _choose(ROUNDED, vllm_config)


def _choose(method: str, vllm_config: VllmConfig) -> None:
    model = vllm_config.model_config
    model.quantization = method
    vllm_config.quant_config = vllm_config.get_quantization_config(model, vllm_config.load_config)


def stored_method(method: str | None) -> str | None:
    """How the checkpoint is quantized, which `rounded` says nothing of."""
    return None if method == ROUNDED else method


def report_expansions() -> None:
    """Say in one line for each format what a model's weights take over its checkpoint, if they take more."""
    import sys

    module = sys.modules.get("ascend_plugin.quantization.dequantized")  # imported by the layers that need it
    if module is not None:
        module.report()
