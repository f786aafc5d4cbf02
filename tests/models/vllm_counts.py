"""vLLM's own counts of tiny models, a line of JSON each: modules on the meta device and the caches that they ask for.

Run as a process of its own on emulated chips. Names after it choose models; without any, all of them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"ASCEND_EMULATOR": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}

import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.model_loader.utils import initialize_model

from ascend_facts.model_shape import read_model_shape

# A vocabulary that needs no padding.
TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD = {"head_dim": 32}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Mixtures first: the first of all makes the groups of ranks, and only a mixture makes that of experts.
MODELS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**EXPERTS, **HEAD},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 40},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "llama": {},
    "mistral": HEAD,
    "qwen2": {},
    "qwen3": HEAD,
    "gemma": HEAD,
    "gemma2": HEAD,
    "gemma3_text": HEAD,
    "phi3": {},
    "gpt_neox": {"num_key_value_heads": 4},
    "starcoder2": {},
    "olmo2": {},
    "cohere": {},
    "nemotron": {},
    "stablelm": {},
    "granite": {},
    "glm4": HEAD,
    "seed_oss": HEAD,
    "ernie4_5": HEAD,
}


def cache_of(layer: Any, config: Any) -> int:
    """Bytes of one token in the cache of a layer that looks back over everything, be it by a window so wide."""
    spec = layer.get_kv_cache_spec(config) if isinstance(layer, AttentionLayerBase) else None
    if spec is None or (getattr(spec, "sliding_window", None) or 1 << 30) < config.model_config.max_model_len:
        return 0
    return int(spec.page_size_bytes // spec.block_size)


def count(model_type: str, is_first: bool) -> dict[str, Any]:
    config = AutoConfig.for_model(model_type, **{**TINY, **MODELS[model_type]})
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        arguments = EngineArgs(
            model=folder, skip_tokenizer_init=True, enforce_eager=True, load_format="dummy", max_model_len=64
        )
        engine = arguments.create_engine_config()
        with set_current_vllm_config(engine):
            if is_first:
                init_distributed_environment(1, 0, f"file://{tempfile.mktemp()}", 0, "gloo")
                initialize_model_parallel(1, 1)
            with torch.device("meta"):
                model = initialize_model(engine)
            layers = engine.compilation_config.static_forward_context.values()
            cache = sum(cache_of(layer, engine) for layer in layers)
        shape = read_model_shape(json.loads(Path(folder, "config.json").read_text(encoding="utf-8")))
    return {
        "model": model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "counted": shape.parameters,
        "cache": cache,
        "cache_counted": 2 * shape.cache_values_per_token(1),
    }


if __name__ == "__main__":
    for index, name in enumerate(sys.argv[1:] or MODELS):
        print(json.dumps(count(name, index == 0)), flush=True)
