"""A context of 32,768 tokens on an emulated 310P3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.tiny import TinyShape, build_tiny_qwen3

from .assertions import TIE, gap, tokens_of

CONTEXT = 32768
ANSWER = 8
NARROW = TinyShape(
    num_hidden_layers=2,
    hidden_size=128,
    intermediate_size=256,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=CONTEXT,
)


@pytest.mark.slow
def test_the_last_token_of_32768(run_engine: Callable, reference_logits: Callable, tmp_path: Path) -> None:
    """Prefilled in chunks, answered as the reference does, in memory that holds no tensor of context x context."""
    model = build_tiny_qwen3(tmp_path / "narrow", NARROW)
    prompt = [(7919 * index + index // 1000) % 40000 + 100 for index in range(CONTEXT - ANSWER)]
    answered = run_engine(
        model,
        [[{"prompt": prompt, "sampling": {"temperature": 0, "max_tokens": ANSWER, "ignore_eos": True}}]],
        max_model_len=CONTEXT,
        max_num_batched_tokens=2048,
        num_gpu_blocks_override=CONTEXT // 128 + 1,
    )
    (tokens,) = tokens_of(answered)
    assert len(prompt) + len(tokens) == CONTEXT
    (judged,) = reference_logits(model, [prompt + tokens], last=ANSWER)
    assert max(gap(logits, token) for logits, token in zip(judged, tokens, strict=True)) < TIE
    assert answered["rounds"][0]["stats"]["memory"]["chip_0"]["peak_bytes"] < CONTEXT * CONTEXT
