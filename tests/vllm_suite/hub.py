"""A model hub's cache with the configurations that vLLM's tests name, so that no hub is asked for them.

They read the configuration of a model and no weights. facebook/opt-125m has the values that transformers' OPTConfig
documents as this model's, Qwen3-0.6B those of our model cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascend_cli.registry.cards import find_model

OPT_125M = {
    "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 768, "num_attention_heads": 12,
    "num_hidden_layers": 12, "ffn_dim": 3072, "vocab_size": 50272, "max_position_embeddings": 2048,
    "word_embed_proj_dim": 768, "do_layer_norm_before": True, "torch_dtype": "float16", "bos_token_id": 2,
    "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip


def write(home: Path) -> None:
    """Make `home` usable as HF_HOME."""
    _write_model(home, "facebook/opt-125m", OPT_125M)
    _write_model(home, "Qwen/Qwen3-0.6B", find_model("qwen3-0.6b").config)


def _write_model(home: Path, repository: str, config: dict[str, Any]) -> None:
    model = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = model / "snapshots" / "configuration"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(config))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(snapshot.name)
