"""A token's experts are chosen by CANN's gating operator or by stock operators, and may have no gate of their own.

Reason: vLLM's fused_topk, fused_topk_bias and zero_experts_compute_triton call kernels of CUDA and Triton, and the
routers call these functions directly. A layer of experts without a gate (Nemotron-H) ends with an error wherever the
platform is not CUDA, ROCm or XPU, though the layer's method is a platform's own.
Upstream: vllm/model_executor/layers/fused_moe/router/fused_topk_router.py, fused_topk_bias_router.py,
grouped_topk_router.py and zero_expert_router.py; fused_moe/config.py, the last lines of FusedMoEConfig.__post_init__.
Held by: tests/upstream/test_patches.py, the rows with experts of docs/models.md.
Exit: when the three are CustomOps, as GroupedTopk is, and the layer asks the platform.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

UNGATED = "is_act_and_mul=False is supported only for"


def apply() -> None:
    from vllm.model_executor.layers.fused_moe import config
    from vllm.model_executor.layers.fused_moe.router import (
        fused_topk_bias_router,
        fused_topk_router,
        grouped_topk_router,
        zero_expert_router,
    )

    from ascend_plugin.ops import expert_choice

    plain: tuple[Any, ...] = fused_topk_router, grouped_topk_router  # modules of which mypy knows what they export
    corrected: tuple[Any, ...] = fused_topk_bias_router, grouped_topk_router, zero_expert_router
    for router in plain:
        router.fused_topk = expert_choice.fused_topk
    for router in corrected:
        router.fused_topk_bias = expert_choice.fused_topk_bias
    zeros: Any = zero_expert_router
    zeros.zero_experts_compute_triton = expert_choice.identity_experts
    _allow_experts_without_a_gate(config.FusedMoEConfig)


def _allow_experts_without_a_gate(layer: Any) -> None:
    check = layer.__post_init__
    if hasattr(check, "__wrapped__"):
        return

    @wraps(check)
    def checked(self: Any) -> None:
        try:
            check(self)
        except NotImplementedError as error:
            if not str(error).startswith(UNGATED):  # the last that is checked: nothing is left out
                raise

    layer.__post_init__ = checked
