"""Engines on emulated chips, and the reference that judges them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ascend_emulator.launcher import Machine

from ascend_cli.registry.smollm2 import build_smollm2
from conformance.tiny import build_tiny_qwen3

HERE = Path(__file__).parent
SMALL = {
    "dtype": "float16",  # what every chip has: only the rounding of fp16 lies between an answer and the reference
    "max_model_len": 512,
    "max_num_batched_tokens": 256,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.05,
    "num_gpu_blocks_override": 32,
}


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smollm2(tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "qwen3")


def run_jobs(machine: Machine, folder: Path, model: Path, rounds: list, choices: list[dict]) -> list[dict[str, Any]]:
    """Run an engine for each choice of options ("rounds" among them replace `rounds`) on a machine; see engine.py."""
    jobs = [
        {
            "model": str(model),
            "rounds": options.pop("rounds", rounds),
            **{name: options.pop(name) for name in ("watch", "linger_s") if name in options},
            "options": {**SMALL, **options},
        }
        for options in map(dict, choices)
    ]
    job, result = folder / "job.json", folder / "answer.json"
    result.unlink(missing_ok=True)
    job.write_text(json.dumps(jobs))
    command = [sys.executable, str(HERE / "engine.py"), str(job), str(result)]
    done = machine.run(command, capture_output=True, text=True)
    assert result.exists(), done.stdout[-4000:] + done.stderr[-8000:]
    return json.loads(result.read_text())


@pytest.fixture
def run_engines(emulated: Callable[..., Machine], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """run_engines(model, rounds, [options of vllm.LLM, ...], chip, count) -> what engine.py answers, an engine each."""

    def run(
        model: Path, rounds: list, choices: list[dict], chip: str = "310P3", count: int = 1
    ) -> list[dict[str, Any]]:
        return run_jobs(emulated(chip=chip, count=count), tmp_path, model, rounds, choices)

    return run


@pytest.fixture
def run_engine(run_engines: Callable[..., list[dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """run_engine(model, rounds, chip, count, **options of vllm.LLM) -> what engine.py answers for a single engine."""

    def run(model: Path, rounds: list, chip: str = "310P3", count: int = 1, **options: Any) -> dict[str, Any]:
        return run_engines(model, rounds, [options], chip, count)[0]

    return run


@pytest.fixture(scope="session")
def reference_logits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[np.ndarray]]:
    """reference_logits(model, sequences, last=0, dtype="float32") -> reference.py's answer, an array a sequence."""
    folder, known = tmp_path_factory.mktemp("reference"), {}

    def logits(model: Path, sequences: list[list[int]], last: int = 0, dtype: str = "float32") -> list[np.ndarray]:
        names = [(model, last, dtype, tuple(tokens)) for tokens in sequences]
        new = sorted({name[-1] for name in names if name not in known})
        if new:
            job, result = folder / "job.json", folder / "logits.npz"
            job.write_text(json.dumps({"model": str(model), "sequences": new, "last": last, "dtype": dtype}))
            subprocess.run([sys.executable, str(HERE / "reference.py"), str(job), str(result)], check=True)
            with np.load(result) as arrays:
                known.update({(model, last, dtype, tokens): arrays[f"arr_{index}"] for index, tokens in enumerate(new)})
        return [known[name] for name in names]

    return logits
