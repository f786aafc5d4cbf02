"""A token's experts are chosen by CANN's gating operator.

Reason: vLLM's fused_topk calls a CUDA kernel, and the routers call that function directly.
Upstream: vllm/model_executor/layers/fused_moe/router/fused_topk_router.py and grouped_topk_router.py.
Held by: tests/upstream/test_patches.py, the rows with experts of docs/models.md.
Exit: when fused_topk is a CustomOp, as GroupedTopk is.
"""

from __future__ import annotations


def apply() -> None:
    from vllm.model_executor.layers.fused_moe.router import fused_topk_router, grouped_topk_router

    from ascend_plugin.ops import moe

    fused_topk_router.fused_topk = grouped_topk_router.fused_topk = moe.fused_topk
