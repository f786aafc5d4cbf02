"""The steps whose counts are kept: engines on both chips, and in each a few steps of a kind.

Real structures with few and narrow layers. What a step costs beside its products and attention does not depend on
their width, and a launch too many shows at two layers as well as at sixty-four.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CHIPS = ("310P3", "910B3")
DECODE_STEPS = 8  # that two rounds of a decode case differ by
BLOCK = 128


@dataclass(frozen=True)
class Step:
    """Requests of equal prompts: `tokens` of each are decoded, or 0 where the prompt's own steps are the subject."""

    name: str
    requests: int = 1
    prompt_tokens: int = 6
    decodes: bool = True
    adapters: int = 0  # how many adapters the requests take in turns
    repeats: bool = False  # a prompt that drafts by n-grams find again


@dataclass(frozen=True)
class Engine:
    """One engine: a checkpoint by its name in architectures.toml, arguments of vllm.LLM, and its steps."""

    name: str
    architecture: str
    steps: tuple[Step, ...]
    options: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1


DECODE, DECODE_4, PREFILL = Step("decode 1"), Step("decode 4", 4), Step("prefill 64", 1, 64, decodes=False)
CHUNKED = Step("prefill 320 in chunks of 128", 1, 320, decodes=False)

ENGINES = (
    Engine("dense, graphs", "qwen3", (DECODE, DECODE_4, PREFILL, CHUNKED)),
    Engine("dense, eager", "qwen3", (DECODE, PREFILL), {"enforce_eager": True}),
    Engine("experts, graphs", "qwen3-moe", (DECODE, DECODE_4, PREFILL)),
    Engine("hybrid, graphs", "qwen3_5", (DECODE, DECODE_4, PREFILL)),
    Engine("W8A8, graphs", "qwen3-w8a8", (DECODE, PREFILL)),
    Engine("LoRA, graphs", "qwen3", (Step("decode 4, two adapters", 4, adapters=2),), {"enable_lora": True}),
    Engine(
        "n-gram drafts, graphs",
        "qwen3",
        (Step("decode 1, three drafts", 1, 48, repeats=True),),
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2}},
    ),
    Engine("dense on two chips, graphs", "qwen3", (DECODE, PREFILL), ranks=2),
)

OPTIONS = {
    "dtype": "float16",
    "max_model_len": 512,
    "max_num_batched_tokens": BLOCK,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.05,
    "num_gpu_blocks_override": 32,
    "enable_prefix_caching": False,
    "skip_tokenizer_init": True,
    "disable_log_stats": True,
}


def prompts(step: Step) -> list[list[int]]:
    """Token ids: of each request others, or all the same where drafts should find them again."""
    if step.repeats:
        return [[0] * step.prompt_tokens for _ in range(step.requests)]
    return [
        [(31 * request + 7 * position) % 400 + 5 for position in range(step.prompt_tokens)]
        for request in range(step.requests)
    ]
