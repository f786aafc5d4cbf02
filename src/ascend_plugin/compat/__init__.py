"""Every change to vLLM and torch that no official hook allows: one file a patch, all of them in PATCHES.

Each file says the reason, the upstream reference, the test that holds it and when it can go. tests/upstream holds each
replaced name to the source that the patch was written for, and fails when a patch is no longer needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ascend_facts.chips import ChipSpec


@dataclass(frozen=True)
class Patch:
    """A file of this package and the names that it replaces, as dotted paths."""

    file: str
    replaces: tuple[str, ...]
    applied: str  # when: to each process, before a configuration, to a worker, to a loaded model


MAMBA = "vllm.v1.worker.mamba_utils"
MODELS = "vllm.model_executor.models"
ROUTERS = "vllm.model_executor.layers.fused_moe.router"
PATCHES = (
    Patch(
        "torchvision",
        ("torchvision._meta_registrations", "transformers.models.qwen2_vl.image_processing_qwen2_vl"),
        "process",
    ),
    Patch(
        "server_steps",
        (
            "vllm.engine.arg_utils.EngineArgs._set_default_max_num_seqs_and_batched_tokens_args",
            "vllm.config.model.ModelConfig._try_verify_and_update_model_config",
        ),
        "configuration",
    ),
    Patch("torch_cuda", ("torch.cuda.Stream", "torch.cuda.Event", "torch.cuda.stream"), "worker"),
    Patch("kernel_warmup", ("vllm.v1.worker.gpu_worker.kernel_warmup",), "worker"),
    Patch(
        "expert_routing",
        (
            f"{ROUTERS}.fused_topk_router.fused_topk",
            f"{ROUTERS}.grouped_topk_router.fused_topk",
            f"{ROUTERS}.fused_topk_bias_router.fused_topk_bias",
            f"{ROUTERS}.grouped_topk_router.fused_topk_bias",
            f"{ROUTERS}.zero_expert_router.fused_topk_bias",
            f"{ROUTERS}.zero_expert_router.zero_experts_compute_triton",
            "vllm.model_executor.layers.fused_moe.config.FusedMoEConfig.__post_init__",
        ),
        "worker",
    ),
    Patch(
        "recurrent_states",
        (
            f"{MAMBA}.collect_mamba_copy_meta",
            f"{MAMBA}.do_mamba_copy_block",
            f"{MAMBA}.MambaSpecDecodeGPUContext",
            "vllm.model_executor.layers.mamba.gdn.olmo_gdn_linear_attn.set_triton_allocator",
        ),
        "worker",
    ),
    Patch("linear_methods", ("vllm.model_executor.layers.linear.LinearBase.quant_method",), "model"),
    Patch("module_dispatch", ("torch.nn.Module.__call__",), "model"),
    Patch(
        "picture_positions",
        (
            f"{MODELS}.qwen3_vl.Qwen3_VisionTransformer.fast_pos_embed_interpolate",
            f"{MODELS}.qwen3_omni_moe_thinker.Qwen3Omni_VisionTransformer.fast_pos_embed_interpolate",
        ),
        "model",
    ),
)


def prepare_process() -> None:
    """What every process of vLLM needs, from register() on. Light; can be repeated."""
    from ascend_plugin.compat import torchvision

    torchvision.apply()


def prepare_configuration() -> None:
    """What EngineArgs needs before it chooses defaults. Can be repeated."""
    from ascend_plugin.compat import server_steps

    server_steps.apply()


def prepare_worker_process() -> None:
    """What a worker needs before its model runner is created. Can be repeated."""
    from ascend_plugin.compat import expert_routing, kernel_warmup, recurrent_states, torch_cuda

    torch_cuda.apply()
    kernel_warmup.apply()
    expert_routing.apply()
    recurrent_states.apply()


def prepare_recurrent_layers() -> None:
    """What a model with recurrent layers needs before it is made. Can be repeated."""
    from ascend_plugin.compat import recurrent_states

    recurrent_states.apply_to_layers()


def prepare_model(model: torch.nn.Module, chip: ChipSpec) -> None:
    """What a model needs once its weights are loaded, each time they are."""
    from ascend_plugin.compat import linear_methods, module_dispatch, picture_positions

    linear_methods.apply(model, chip)
    module_dispatch.apply(model)
    picture_positions.apply(model)
