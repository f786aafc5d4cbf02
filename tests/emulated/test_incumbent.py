"""The official vllm-ascend, unmodified, serves on the emulated chip what transformers computes.

It needs the virtual environment that `python3.11 scripts/setup_incumbent.py` makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.server import serve

from .assertions import LONG, PROMPTS, TIE, worst_gap

VLLM = Path(__file__).parents[2] / ".venv-incumbent" / "bin" / "vllm"
TOKENS = 16
EVERY = [LONG, *PROMPTS]
SMALL = [
    *("--dtype", "float16", "--block-size", "128", "--max-model-len", "512", "--max-num-batched-tokens", "512"),
    *("--max-num-seqs", "4", "--gpu-memory-utilization", "0.05", "--served-model-name", "smollm2"),
]
GRAPHS = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4]}


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason="needs scripts/setup_incumbent.py")
@pytest.mark.parametrize(
    "mode", [["--enforce-eager"], ["--compilation-config", json.dumps(GRAPHS)]], ids=["eager", "graph"]
)
def test_vllm_ascend_answers_right(reference_logits: Callable, smollm2: Path, tmp_path: Path, mode: list[str]) -> None:
    """Greedy tokens of requests served together, each within a near-tie of the fp32 reference's choice."""
    chip = {"ASCEND_EMULATOR_CHIP": "310P3", "ASCEND_EMULATOR_COUNT": "1"}
    with serve(str(smollm2), *SMALL, *mode, log=tmp_path / "log", environment=chip, vllm=str(VLLM)) as server:

        def complete(prompt: list[int]) -> list[int]:
            body = {"model": "smollm2", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
            answer = httpx.post(f"{server.base_url}/completions", json={**body, "return_token_ids": True}, timeout=300)
            return answer.raise_for_status().json()["choices"][0]["token_ids"]

        with ThreadPoolExecutor(len(EVERY)) as pool:
            answers = list(pool.map(complete, EVERY))
    assert [len(tokens) for tokens in answers] == [TOKENS] * len(EVERY)
    judged = reference_logits(smollm2, [prompt + tokens for prompt, tokens in zip(EVERY, answers, strict=True)])
    assert max(worst_gap(*case) for case in zip(judged, EVERY, answers, strict=True)) < TIE
