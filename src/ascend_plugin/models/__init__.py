"""Models whose class in vLLM gives wrong text on any hardware, mended and registered in its place."""

from __future__ import annotations

MENDED = {
    "Gemma3nForCausalLM": "ascend_plugin.models.gemma3n:Gemma3nForCausalLM",
    "PhiMoEForCausalLM": "ascend_plugin.models.phimoe:PhiMoEForCausalLM",
}


def register() -> None:
    """Put these in the place of vLLM's, in a process that loads a model; none is imported. Can be repeated."""
    from vllm.model_executor.models.registry import ModelRegistry

    for name, place in MENDED.items():
        ModelRegistry.register_model(name, place)
