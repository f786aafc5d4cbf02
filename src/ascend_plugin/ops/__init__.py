"""vLLM's layers on Ascend operators, registered through CustomOp.register_oot and vllm.ir."""

from __future__ import annotations


def register_custom_ops() -> None:
    """Register the classes that replace vLLM's layers; gated delta nets when a model imports them (compat.py).

    Can be repeated.
    """
    from ascend_plugin.ops import activation, embedding, moe, norm, rotary

    activation.register()
    embedding.register()
    moe.register()
    norm.register()
    rotary.register()
