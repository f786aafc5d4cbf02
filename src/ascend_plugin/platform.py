"""AscendPlatform: what vLLM asks of a platform, answered from the chip table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum

from ascend_facts.chips import ChipSpec
from ascend_plugin import detection

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.attention.backends.registry import AttentionBackendEnum
    from vllm.v1.attention.selector import AttentionSelectorConfig

COMMUNICATOR = "ascend_plugin.distributed.AscendCommunicator"
ATTENTION_BACKENDS = {
    "paged_nz": "ascend_plugin.attention.paged_nz.PagedNzBackend",
    "fused_infer": "ascend_plugin.attention.fused_infer.FusedInferBackend",
}
LATENT_BACKEND = "ascend_plugin.attention.latent.LatentBackend"


class AscendPlatform(Platform):
    """One platform class for every Ascend chip; what differs between chips is read from ChipSpec."""

    _enum = PlatformEnum.OOT
    # vLLM builds torch.device(f"{device_name}:{rank}"), so this is torch's name; get_device_name() has the chip's.
    device_name: str = "npu"
    device_type: str = "npu"
    dispatch_key: str = "PrivateUse1"
    dist_backend: str = "hccl"
    device_control_env_var: str = "ASCEND_RT_VISIBLE_DEVICES"
    ray_device_key: str = "NPU"
    ray_noset_device_env_vars: list[str] = ["RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"]  # noqa: RUF012
    simple_compile_backend: str = "eager"  # there is no Inductor backend to compile with
    supported_quantization: list[str] = []  # noqa: RUF012  empty accepts all; register_quantization_config appends

    @staticmethod
    def chip() -> ChipSpec:
        return detection.current_chip()

    # ------------------------------------------------------------------ the chip

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        return [getattr(torch, name) for name in self.chip().model_dtypes]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.chip().soc_version

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """Bytes, from the chip table: the front end asks, and must not create a device context."""
        return cls.chip().usable_memory_bytes(device_id)

    @classmethod
    def get_device_uuid(cls, device_id: int = 0) -> str:
        return f"{cls.chip().soc_version}-{device_id}"

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return cls.chip().cube_cores

    @classmethod
    def device_count(cls) -> int:
        return detection.device_count()

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return True

    def is_sleep_mode_available(self) -> bool:
        return True

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        return cls.chip().has_graphs

    @classmethod
    def check_runner_kv_caches_multi_layer(cls) -> None:
        """Nothing here reads the runner's list by layer index, so encoder-decoder models may share one."""

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype | str) -> None:
        """Raises ValueError with the remedy for a dtype that the chip cannot compute in."""
        from ascend_plugin import configuration

        configuration.check_dtype(dtype, cls.chip())

    # ------------------------------------------------------------------ the device

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        import torch_npu

        torch_npu.npu.set_device(device)

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        import torch_npu

        torch_npu.npu.manual_seed_all(seed)

    @classmethod
    def inference_mode(cls) -> Any:
        return torch.inference_mode()

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device | None = None) -> float:
        """Bytes that PyTorch's allocator holds on the device, counted afresh."""
        import torch_npu

        torch_npu.npu.reset_peak_memory_stats(device)
        return torch_npu.npu.max_memory_allocated(device)

    # ------------------------------------------------------------------ the configuration

    @classmethod
    def pre_register_and_update(cls, parser: Any = None) -> None:
        from ascend_plugin import compat, quantization, service

        quantization.register()
        if parser is None:  # asked by EngineArgs, which is about to choose its defaults
            compat.prepare_configuration()
        else:
            service.set_server_defaults(parser)

    @classmethod
    def verify_quantization(cls, quant: str) -> None:
        from ascend_plugin import quantization

        super().verify_quantization(quant)
        quantization.register_layers()

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        from ascend_plugin import configuration

        configuration.apply_defaults(vllm_config, cls.chip())

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        from ascend_plugin import configuration
        from ascend_plugin.service import interrupted_start

        interrupted_start.prepare()  # vLLM's handler stands from before the configuration on
        configuration.check_and_update(vllm_config, cls.chip())

    # ------------------------------------------------------------------ the parts that vLLM takes from a platform

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's own kernels are CUDA's; ours are torch_npu's, which is loaded."""

    @classmethod
    def register_triton_kernel_overrides(cls) -> None:
        from vllm.triton_utils.dispatcher import register_kernels

        from ascend_plugin import quantization
        from ascend_plugin.kernels import OVERRIDES
        from ascend_plugin.ops import register_custom_ops

        register_kernels(OVERRIDES)
        register_custom_ops()
        quantization.register()
        quantization.register_layers()

    @classmethod
    def get_attn_backend_cls(
        cls,
        selected_backend: AttentionBackendEnum | None,
        attn_selector_config: AttentionSelectorConfig,
        num_heads: int | None = None,
    ) -> str:
        from vllm.utils.import_utils import resolve_obj_by_qualname
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

        chip = cls.chip()
        path = LATENT_BACKEND if attn_selector_config.use_mla else ATTENTION_BACKENDS[chip.attention]
        if selected_backend not in (None, AttentionBackendEnum.CUSTOM):
            raise ValueError(
                f"Leave out the attention backend {selected_backend.name}: on {chip.soc_version} there is one for "
                "each chip and it is chosen for you."
            )
        register_backend(AttentionBackendEnum.CUSTOM, path)  # which stands for the backend of this chip
        backend = resolve_obj_by_qualname(path)
        reasons = backend.validate_configuration(device_capability=None, **attn_selector_config._asdict())
        if reasons:
            raise ValueError(f"This model's attention does not run on {chip.soc_version}: {', '.join(reasons)}.")
        return path

    @classmethod
    def get_mla_prefill_backend_cls(cls, mla_selector_config: Any) -> Any:
        from ascend_plugin.attention.latent import NoPrefillBackend

        return NoPrefillBackend

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return COMMUNICATOR

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "ascend_plugin.lora.AscendPunicaWrapper"

    @classmethod
    def get_compile_backend(cls) -> str:
        # Never used, as nothing is compiled; any other answer makes vLLM warn of a choice that no user made.
        return "inductor"

    @classmethod
    def use_custom_op_collectives(cls) -> bool:
        return False  # those exist for torch.compile; eager calls are shorter
