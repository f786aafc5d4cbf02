"""The steps whose counts are kept: engines on both chips, and in each a few steps of a kind.

Real structures with few and narrow layers. What a step costs beside its products and attention does not depend on
their width, and a launch too many shows at two layers as well as at sixty-four.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CHIPS = ("310P3", "910B3")
DECODE_STEPS = 8  # that two rounds of a decode case differ by
CHUNK = 256  # tokens of a step at most


@dataclass(frozen=True)
class Step:
    """Requests of equal prompts: `tokens` of each are decoded, or 0 where the prompt's own steps are the subject."""

    name: str
    requests: int = 1
    prompt_tokens: int = 6
    decodes: bool = True
    adapters: int = 0  # how many adapters the requests take in turns


@dataclass(frozen=True)
class Engine:
    """One engine: a checkpoint by its name in architectures.toml, arguments of vllm.LLM, and its steps."""

    name: str
    architecture: str
    steps: tuple[Step, ...]
    options: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1


DECODE, DECODE_4, PREFILL = Step("decode 1"), Step("decode 4", 4), Step("prefill 64", 1, 64, decodes=False)
CHUNKED = Step("prefill 448 in chunks of 256", 1, 448, decodes=False)

ENGINES = (
    Engine("dense, graphs", "qwen3", (DECODE, DECODE_4, PREFILL, CHUNKED)),
    Engine("dense, eager", "qwen3", (DECODE, PREFILL), {"enforce_eager": True}),
    Engine("experts, graphs", "qwen3-moe", (DECODE, DECODE_4, PREFILL)),
    Engine("hybrid, graphs", "qwen3_5", (DECODE, DECODE_4, PREFILL)),
    Engine("W8A8, graphs", "qwen3-w8a8", (DECODE, PREFILL)),
    Engine(
        "LoRA, graphs",
        "qwen3",
        (Step("decode 4, two adapters", 4, adapters=2),),
        {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8},
    ),
)

OPTIONS = {
    "dtype": "float16",
    "max_model_len": 512,
    "max_num_batched_tokens": CHUNK,
    "max_num_seqs": 4,
    "kv_cache_memory_bytes": 256 << 20,
    "enable_prefix_caching": False,
    "skip_tokenizer_init": True,
    "disable_log_stats": True,
}


def prompts(step: Step) -> list[list[int]]:
    """Token ids, of each request others."""
    return [
        [(31 * request + 7 * position) % 200 + 5 for position in range(step.prompt_tokens)]
        for request in range(step.requests)
    ]
