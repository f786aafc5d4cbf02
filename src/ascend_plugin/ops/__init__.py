"""vLLM's layers on Ascend operators, registered through CustomOp.register_oot and vllm.ir."""

from __future__ import annotations


def register_custom_ops() -> None:
    """Register the classes that replace vLLM's layers. Can be repeated."""
    from ascend_plugin.ops import activation, gated_delta_net, moe, norm, rotary

    activation.register()
    gated_delta_net.register()
    moe.register()
    norm.register()
    rotary.register()
