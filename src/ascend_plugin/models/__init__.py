"""Models whose class in vLLM gives wrong text, or asks a chip for what it cannot do: mended, in its place."""

from __future__ import annotations

EAGLE3 = "ascend_plugin.models.eagle3"
MENDED = {
    "Gemma3nForCausalLM": "ascend_plugin.models.gemma3n:Gemma3nForCausalLM",
    "PhiMoEForCausalLM": "ascend_plugin.models.phimoe:PhiMoEForCausalLM",
    **dict.fromkeys(
        (
            *("Eagle3LlamaForCausalLM", "LlamaForCausalLMEagle3", "Eagle3MiniMaxM2ForCausalLM"),
            *("Eagle3Qwen2_5vlForCausalLM", "Eagle3Qwen3vlForCausalLM"),
        ),
        f"{EAGLE3}:AscendEagle3Llama",
    ),
    "Eagle3Qwen3ForCausalLM": f"{EAGLE3}:AscendEagle3Qwen3",
}


def register() -> None:
    """Put these in the place of vLLM's, in a process that loads a model; none is imported. Can be repeated."""
    from vllm.model_executor.models.registry import ModelRegistry

    for name, place in MENDED.items():
        ModelRegistry.register_model(name, place)
