"""A real model through transformers on an emulated chip: its logits are as good as fp16 arithmetic can make them.

Token equality would be the wrong gate: fp16 on a CPU and on a chip round differently, and near-ties flip. Instead both
are compared, teacher-forced, with float32: the chip's error may not exceed the CPU's own fp16 error by much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.pytest_plugin import Npu

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a small village,",
    "The three laws of thermodynamics are",
    "Q: What is 17 times 3? A:",
    "Die Hauptstadt von Deutschland ist",
    "To make a good cup of tea, first",
    "import numpy as np\n",
]
TOKENS = 64
# Over 64 tokens of these prompts CPU fp16 itself varies by this much between its own attention implementations.
ALLOWED_RATIO = 1.25


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = pytest.importorskip("ascend_cli.registry.smollm2")
    pytest.importorskip("transformers")
    try:
        return Path(source.build_smollm2(tmp_path_factory.mktemp("models") / "smollm2"))
    except source.ModelSourceMissing as missing:
        pytest.skip(str(missing))


def logit_errors(model: Path, prompts: list[str], stride: int = 1) -> dict[str, float]:
    """Root mean square error against float32 of the logits of CPU fp16 and of the chip, over the same tokens.

    `stride` spreads the chip's positions: other than 1 is a deliberate fault, to see that the comparison notices.
    """
    import torch
    import torch_npu  # noqa: F401  # registers the device
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    exact = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    half = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16)
    on_chip = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16).to("npu")
    squares: dict[str, list[Any]] = {"cpu": [], "chip": []}
    flips = 0
    with torch.inference_mode():
        for prompt in prompts:
            tokens = tokenizer(prompt, return_tensors="pt").input_ids
            forced = exact.generate(tokens, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
            expected = exact(forced).logits
            positions = stride * torch.arange(forced.shape[1]).unsqueeze(0)
            answers = {
                "cpu": half(forced).logits.float(),
                "chip": on_chip(forced.to("npu"), position_ids=positions.to("npu")).logits.cpu().float(),
            }
            for name, logits in answers.items():
                squares[name].append((logits - expected).square().flatten())
            flips += int((answers["chip"].argmax(-1) != expected.argmax(-1)).sum())
    errors = {name: float(torch.cat(values).mean().sqrt()) for name, values in squares.items()}
    return {**errors, "flips": flips}


@pytest.mark.slow
@pytest.mark.chips("310P3", "910B3")
def test_logits_are_within_fp16_noise(npu: Npu, smollm2: Path) -> None:
    errors = npu.call(logit_errors, smollm2, PROMPTS)
    assert errors["chip"] <= ALLOWED_RATIO * errors["cpu"], errors


@pytest.mark.slow
@pytest.mark.chips("310P3")
def test_the_comparison_notices_a_wrong_computation(npu: Npu, smollm2: Path) -> None:
    """Positions two apart instead of one change every rotation."""
    errors = npu.call(logit_errors, smollm2, PROMPTS[:1], stride=2)
    assert errors["chip"] > 10 * errors["cpu"], errors
