"""What vllm.LLM offers beside plain generation works on both chips (asked.py); 310P takes no embeddings for prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .assertions import log_softmax

HERE = Path(__file__).parent


@pytest.mark.slow  # an engine
@pytest.mark.parametrize(("chip", "embeds"), [("310P3", False), ("910B3", True)])
def test_embeddings_beams_processors_and_a_reset(
    emulated: Callable, reference_logits: Callable, qwen3: Path, chip: str, embeds: bool
) -> None:
    command = [sys.executable, str(HERE / "asked.py"), str(qwen3), *(["embeds"] if embeds else [])]
    done = emulated(chip=chip, count=1).run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERED ")]
    assert lines, done.stdout[-2000:] + done.stderr[-6000:]
    answered = json.loads(lines[-1].removeprefix("ANSWERED "))
    assert answered["embedded"] == (answered["plain"] if embeds else None)
    assert answered["forced"] == [answered["only"]] * 8
    assert answered["cached"] == [0, 128, 0]
    prompt = answered["prompt"]
    sequences = [prompt + tokens for tokens, _ in answered["beams"]]
    for (tokens, found), logits in zip(answered["beams"], reference_logits(qwen3, sequences), strict=True):
        scores = log_softmax(logits)
        expected = sum(scores[len(prompt) - 1 + step, token] for step, token in enumerate(tokens))
        assert abs(found - expected) < 0.05
    assert answered["beams"][0][1] >= answered["beams"][1][1]
