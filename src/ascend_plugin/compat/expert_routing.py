"""A token's experts are chosen by CANN's gating operator, or by stock operators where a bias corrects the choice.

Reason: vLLM's fused_topk and fused_topk_bias call CUDA kernels, and the routers call these functions directly.
Upstream: vllm/model_executor/layers/fused_moe/router/fused_topk_router.py, fused_topk_bias_router.py,
grouped_topk_router.py and zero_expert_router.py.
Held by: tests/upstream/test_patches.py, the rows with experts of docs/models.md.
Exit: when both are CustomOps, as GroupedTopk is.
"""

from __future__ import annotations

from typing import Any


def apply() -> None:
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
