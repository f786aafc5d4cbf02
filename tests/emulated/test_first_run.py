"""`ascend doctor --first-run` on emulated chips: as it should be, and on a chip with quirks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.host import CANN_VERSION
from ascend_emulator.launcher import Machine
from gguf import GGUFReader

from ascend_cli.doctor.first_run.command import SCHEMA
from ascend_cli.registry.smollm2 import find_gguf, write_tokenizer
from ascend_facts import probes
from conformance.tiny import VOCABULARY

pytestmark = pytest.mark.slow  # four engines and a reference each

MAKE = """
import sys, torch
sys.modules["torch_npu"] = sys.modules["torchvision"] = None  # as in first_run.reference
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size=int(sys.argv[2]), hidden_size=256, intermediate_size=512, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=1024,
                     initializer_range=0.08, tie_word_embeddings=False)
model = LlamaForCausalLM(config)
model.lm_head.weight.data *= 5  # so that few tokens tie
model.half().save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny and random, with a tokenizer: no norms between projection and rotation."""
    folder = tmp_path_factory.mktemp("model")
    environment = {"PATH": "/usr/bin:/bin", "ASCEND_EMULATOR": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    subprocess.run([sys.executable, "-c", MAKE, str(folder), str(VOCABULARY)], check=True, env=environment)
    write_tokenizer(GGUFReader(find_gguf()), folder)
    return folder


def first_run(machine: Machine, model: Path, **variables: str) -> tuple[int, dict[str, Any]]:
    ascend = str(Path(sys.executable).with_name("ascend"))
    command = [ascend, "doctor", "--first-run", str(model), "--json"]
    done = machine.run(command, env=variables, capture_output=True, text=True)
    assert done.stdout, done.stderr[-4000:]
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == SCHEMA
    assert document["emulated"] is True
    return done.returncode, document


def test_a_model_that_runs_as_it_should(emulated: Callable[..., Machine], llama: Path) -> None:
    code, document = first_run(emulated(chip="310P3", count=2), llama)
    assert document["first_difference"] == ""
    assert code == 0
    assert [step["failed"] + step["skipped"] for step in document["steps"]] == [""] * 4
    assert document["steps"][0]["parts"][0]["part"] == "one at a time, against the CPU in float32"
    assert all(part["answers"] > 0 for step in document["steps"] for part in step["parts"])


def test_each_quirk_shows_in_the_step_that_meets_it_first(
    emulated: Callable[..., Machine], llama: Path, tmp_path: Path
) -> None:
    """A probe's result that is wrong of this chip, and a collective that fails."""
    faults = tmp_path / "faults.json"
    fault = {"kind": "launch", "operator": "HcclAllReduce", "code": 507015, "nth": 40, "times": 0}
    faults.write_text(json.dumps({"faults": [fault]}))
    machine = emulated(chip="310P3", count=2, rules="none,rotary_views", faults=faults)
    of = probes.Installation("Ascend310P3", CANN_VERSION, None, emulated=True)
    result = tmp_path / "result.json"
    probes.ProbeResult(of, {"rotary_on_views": True}).write(result)
    code, document = first_run(machine, llama, ASCEND_PROBE=str(result))
    assert code == 1
    assert document["first_difference"].startswith("eager, one at a time, against the CPU in float32: prompt 1: ")
    eager, graphs, _, two = document["steps"]
    assert eager["parts"][0]["what"], "prompts are rotated wrongly from the first step on"
    assert two["failed"]
    assert not graphs["failed"]
