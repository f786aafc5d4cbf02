"""The conformance runner, with transformers in fp16 in the place of the engine: does it pass and fail rightly?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.errors import AscendError
from conformance.architectures import FACTS, architectures
from conformance.places import CPU_ONLY, Place, Places
from conformance.prompts import Prompts
from conformance.verify import Verifier

pytestmark = pytest.mark.slow  # every case starts fresh processes for both sides: minutes in all

ENGINE = Path(__file__).with_name("transformers_engine.py")
# One of each kind: dense, routed, recurrent, encoder. All of them with all of their faults are for the slow run.
REPRESENTATIVE = {"qwen3": "wrong-history", "mixtral": "swapped-experts", "qwen3_5": "wrong-decay"}
REPRESENTATIVE |= {"bert": "shifted-positions", "qwen2-vl": "swapped-pictures"}
PAIRS = [(entry.name, fault) for entry in architectures().values() if entry.layout is None for fault in entry.faults]
CASES = [
    pytest.param(*pair, marks=[] if REPRESENTATIVE.get(pair[0]) == pair[1] else pytest.mark.slow) for pair in PAIRS
]


class TransformersEngine(Verifier):
    """A verifier whose engine is transformers in fp16."""

    def _child(self, place: Place, module: str, job: dict[str, Any], folder: Path, log: Path, timeout_s: int) -> int:
        if module != "conformance.engine":
            return super()._child(place, module, job, folder, log, timeout_s)
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "tests.laboratory.transformers_engine", str(path), self.architecture.name]
        with log.open("w") as output:
            return subprocess.run(command, stdout=output, stderr=output, env={**_environment(), **CPU_ONLY}).returncode


def _environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with Places() as made:
        yield made


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def verifier(name: str, places: Places, cache: Path) -> TransformersEngine:
    made = TransformersEngine(architectures()[name], places, cache, cache / "logs", say=lambda text: None)
    if made.architecture.media:
        made.prompts = Prompts(made.prompts.whole[1:3], made.prompts.chunked[:1])
    elif made.prompts.chunked:
        made.prompts = Prompts(made.prompts.whole[:3], made.prompts.chunked[1:2])
    return made


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_an_honest_engine_passes(name: str, places: Places, cache: Path) -> None:
    result = verifier(name, places, cache).run(None, settings=["graph", "one"])
    assert {cell.outcome for cell in result.cells.values()} == {"pass"}, result.cells


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_deliberate_fault_is_caught(name: str, fault: str, places: Places, cache: Path) -> None:
    runner = verifier(name, places, cache)
    assert runner.catches(fault, runner.checkpoint(), None)


def test_a_fault_that_changes_nothing_is_refused(places: Places, cache: Path) -> None:
    runner = verifier("qwen3", places, cache)
    with pytest.raises(AscendError, match="changes nothing"):
        runner.catches("wrong-decay", runner.checkpoint(), None)


def test_checkpoints_are_deterministic_and_their_logits_informative(
    places: Places, cache: Path, tmp_path: Path
) -> None:
    first, second = verifier("qwen3", places, cache).checkpoint(), verifier("qwen3", places, tmp_path).checkpoint()
    for name in ("model.safetensors", FACTS):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert json.loads((first / FACTS).read_text())["informativeness"]["logit_std"] == pytest.approx(3, rel=0.1)


def test_an_engine_that_cannot_start_is_a_failure_with_its_log(places: Places, cache: Path) -> None:
    runner = verifier("qwen3", places, cache)
    runner.prompts = Prompts([[10_000]], [])  # not in the vocabulary
    result = runner.run(None, settings=["graph"])
    assert {cell.outcome for cell in result.cells.values()} == {"fails"}
    assert ".log" in result.cells["prefill"].detail
