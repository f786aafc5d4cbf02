"""Sleep over HTTP: a server that is not asked gives its chips' memory back, and answers as before once it is woken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.server import serve

FREED = re.compile(r"Sleep mode freed ([\d.]+) GiB memory, ([\d.]+) GiB memory is still in use")
CACHE_BLOCKS = 64
CACHE_BYTES = CACHE_BLOCKS * 128 * 4 * 4 * 128 * 2 * 2  # tokens, layers, heads, head size, bytes, keys and values
DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.slow  # a server
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_server_sleeps_and_wakes(emulated: Callable, qwen3: Path, tmp_path: Path, ranks: int) -> None:
    arguments = [str(qwen3), "--served-model-name", "tiny", "--enable-sleep-mode", "--tensor-parallel-size", str(ranks)]
    small = ["--max-model-len", "512", "--max-num-seqs", "4", "--num-gpu-blocks-override", str(CACHE_BLOCKS)]
    machine = emulated(chip="310P3", count=ranks)
    log = tmp_path / "log"
    with serve(*arguments, *small, log=log, environment={**machine.environment, **DEVELOPMENT}) as server:
        question = {"model": "tiny", "prompt": [504, 3575, 282, 4649, 314], "max_tokens": 8, "temperature": 0}

        def ask() -> str:
            answer = httpx.post(f"{server.base_url}/completions", json=question | {"ignore_eos": True}, timeout=120)
            return str(answer.raise_for_status().json()["choices"][0]["text"])

        def is_sleeping() -> bool:
            return bool(httpx.get(f"{server.root_url}/is_sleeping", timeout=60).json()["is_sleeping"])

        first = ask()
        assert not is_sleeping()
        for _ in range(2):
            httpx.post(f"{server.root_url}/sleep", params={"level": 1}, timeout=120).raise_for_status()
            assert is_sleeping()
            httpx.post(f"{server.root_url}/wake_up", timeout=120).raise_for_status()
            assert not is_sleeping()
            assert ask() == first
    freed = [float(gib) * 2**30 for gib, _ in FREED.findall(log.read_text())]  # what each chip's own count says
    assert len(freed) == 2 * ranks
    weights_bytes = (qwen3 / "model.safetensors").stat().st_size
    assert min(freed) > 0.95 * (CACHE_BYTES + weights_bytes) / ranks
