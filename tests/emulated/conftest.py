"""Engines on emulated chips, and the reference that judges them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.launcher import Machine

from ascend_cli.models.smollm2 import build_smollm2
from ascend_cli.models.tiny import build_tiny_qwen3

HERE = Path(__file__).parent
SMALL = {"max_model_len": 1024, "max_num_batched_tokens": 256, "max_num_seqs": 4, "gpu_memory_utilization": 0.05}


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smollm2(tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "qwen3")


@pytest.fixture
def run_engine(emulated: Callable[..., Machine], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """run_engine(model, rounds, chip="310P3", **options of vllm.LLM) -> what tests/emulated/engine.py answers."""
    machines: dict[tuple[str, int], Machine] = {}

    def run(model: Path, rounds: list, chip: str = "310P3", count: int = 1, **options: Any) -> dict[str, Any]:
        machine = machines.setdefault((chip, count), emulated(chip=chip, count=count))
        number = len(list(tmp_path.glob("job*.json")))
        job, result = tmp_path / f"job{number}.json", tmp_path / f"answer{number}.json"
        job.write_text(json.dumps({"model": str(model), "options": {**SMALL, **options}, "rounds": rounds}))
        done = machine.run(
            [sys.executable, str(HERE / "engine.py"), str(job), str(result)], capture_output=True, text=True
        )
        assert result.exists(), done.stdout[-4000:] + done.stderr[-8000:]
        return json.loads(result.read_text())

    return run


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[Path, list[list[int]]], list[dict[str, list[float]]]]:
    """judge(model, sequences of token ids) -> transformers' fp32 log-probabilities and gaps to the likeliest token."""

    def run(model: Path, sequences: list[list[int]]) -> list[dict[str, list[float]]]:
        job, result = tmp_path / "sequences.json", tmp_path / "judgement.json"
        job.write_text(json.dumps({"model": str(model), "sequences": sequences}))
        subprocess.run([sys.executable, str(HERE / "reference.py"), str(job), str(result)], check=True)
        return json.loads(result.read_text())

    return run
