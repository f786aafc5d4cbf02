"""A model hub's cache with the one configuration that vLLM's tests of the scheduler name, so that none is asked for.

They read the configuration of facebook/opt-125m and no weights; its values are those of transformers' OPTConfig, which
documents them as this model's.
"""

from __future__ import annotations

import json
from pathlib import Path

OPT_125M = {
    "architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 768, "num_attention_heads": 12,
    "num_hidden_layers": 12, "ffn_dim": 3072, "vocab_size": 50272, "max_position_embeddings": 2048,
    "word_embed_proj_dim": 768, "do_layer_norm_before": True, "torch_dtype": "float16", "bos_token_id": 2,
    "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip


def write(home: Path) -> None:
    """Make `home` usable as HF_HOME."""
    model = home / "hub" / "models--facebook--opt-125m"
    snapshot = model / "snapshots" / "configuration"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(OPT_125M))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(snapshot.name)
