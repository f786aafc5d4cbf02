"""Two replicas of a model behind one server, a chip each."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from .server import serve

REQUESTS = 6


@pytest.mark.slow
def test_both_replicas_answer_alike(tiny_qwen3: Path, tmp_path: Path) -> None:
    with serve(
        *(str(tiny_qwen3), "--served-model-name", "qwen3", "--data-parallel-size", "2"),
        *("--max-model-len", "512", "--gpu-memory-utilization", "0.05"),
        log=tmp_path / "log",
    ) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)

        def ask(_: int) -> str:
            answer = client.completions.create(
                model="qwen3", prompt="The capital of France is", max_tokens=8, temperature=0
            )
            return answer.choices[0].text

        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(ask, range(REQUESTS)))
        metrics = httpx.get(f"{server.root_url}/metrics").text
    assert len(set(answers)) == 1
    finished = r'^vllm:request_success_total\{engine="(\d)",.*finished_reason="length".*\} (\S+)$'
    served = re.findall(finished, metrics, re.MULTILINE)
    assert {engine for engine, count in served if float(count) > 0} == {"0", "1"}
