"""vLLM's layers on Ascend operators, registered through CustomOp.register_oot."""

from __future__ import annotations


def register_custom_ops() -> None:
    """Register the classes that replace vLLM's layers. Can be repeated."""
    from ascend_plugin.ops import activation, embedding, expert_choice, moe, moe_runner, norm, rotary

    activation.register()
    embedding.register()
    expert_choice.register()
    moe.register()
    norm.register()
    rotary.register()
    moe_runner.register()


def register_recurrent_layers() -> None:
    """Those of hybrid models, whose modules take 0.6 s to import and few models need. Can be repeated."""
    from ascend_plugin.ops import gated_delta_net, mamba

    gated_delta_net.register()
    mamba.register()


def register_encoder_layers() -> None:
    """Those of towers for images and sound, whose modules only multimodal models need. Can be repeated."""
    from ascend_plugin.ops import encoder_attention

    encoder_attention.register()
