"""Counts from config.json against the modules that transformers builds of it: to the last parameter.

Tiny configurations on the meta device, which has no memory: what differs from family to family is there all the same.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ascend_facts.model_shape import read_model_shape

TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
HEAD = {"head_dim": 16}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": HEAD,
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2": {},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3": HEAD,
    "qwen3_moe": {**EXPERTS, **HEAD},
    "gemma": HEAD,
    "gemma2": HEAD,
    "gemma3_text": HEAD,
    "phi": {},
    "phi3": {},
    "gpt_neox": {"num_key_value_heads": 4},
    "starcoder2": {"tie_word_embeddings": False},
    "olmo2": {},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "cohere": {},
    "nemotron": {},
    "stablelm": {},
    "granite": {},
    "glm": HEAD,
    "glm4": HEAD,
    "smollm3": {},
    "seed_oss": HEAD,
    "gpt_oss": {**HEAD, "num_local_experts": 6, "num_experts_per_tok": 2},
    "ernie4_5": HEAD,
}


@pytest.mark.parametrize("model_type", list(MODELS))
def test_a_count_is_that_of_the_modules(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **{**TINY, **MODELS[model_type]})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert read_model_shape(config.to_dict()).parameters == built
