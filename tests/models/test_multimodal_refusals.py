"""What a model with media asks for and cannot have is refused with the remedy, before a device is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .served import on_the_cpu

CONFIGURE = Path(__file__).parents[1] / "emulated" / "configure.py"
MAKE = """
import sys
from pathlib import Path
sys.modules["torch_npu"] = None
from ascend_plugin.compat import torchvision
torchvision.apply()
from conformance.architectures import architectures
from conformance.checkpoint import write_checkpoint
print(write_checkpoint(architectures()[sys.argv[1]], Path(sys.argv[2])))
"""
WITHOUT_TORCHVISION = """
import runpy, sys
from ascend_plugin.compat import torchvision
torchvision.apply()
from ascend_plugin import configuration
configuration.has_torchvision = lambda: False
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def configure(emulated: Callable, checkpoint: str, *before: str, **options: Any) -> str:
    command = [sys.executable, *before, str(CONFIGURE), checkpoint, json.dumps({"max_model_len": 256, **options})]
    done: subprocess.CompletedProcess[str] = emulated(chip="310P3", count=1).run(
        command, capture_output=True, text=True
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "words"), [("gemma3-vl", "--language-model-only"), ("whisper", "Qwen3-ASR")])
def test_attention_that_is_not_there(emulated: Callable, tmp_path: Path, name: str, words: str) -> None:
    checkpoint = on_the_cpu(MAKE, name, str(tmp_path))
    said = configure(emulated, checkpoint)
    assert "CONFIGURATION" not in said and words in said
    if name == "gemma3-vl":
        assert "CONFIGURATION" in configure(emulated, checkpoint, language_model_only=True)


def test_pictures_without_torchvision(emulated: Callable, tmp_path: Path) -> None:
    checkpoint = on_the_cpu(MAKE, "qwen2-vl", str(tmp_path))
    without = ("-c", WITHOUT_TORCHVISION)
    said = configure(emulated, checkpoint, *without)
    assert "CONFIGURATION" not in said and "pip install --no-deps torchvision==" in said
    assert "CONFIGURATION" in configure(emulated, checkpoint, *without, language_model_only=True)
    assert "CONFIGURATION" in configure(emulated, checkpoint)


WITHOUT_NUM2WORDS = """
import runpy, sys
from ascend_plugin.compat import torchvision
torchvision.apply()
from ascend_plugin import configuration
configuration.find_spec = lambda name: None
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_pictures_that_a_missing_package_prepares(emulated: Callable, tmp_path: Path) -> None:
    """SmolVLM is Idefics 3 to vLLM, with a processor of its own."""
    checkpoint = on_the_cpu(MAKE, "idefics3", str(tmp_path))
    written = Path(checkpoint) / "config.json"
    named = {"model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"]}
    config = {**json.loads(written.read_text()), **named}
    config["vision_config"]["model_type"] = "smolvlm_vision"
    written.write_text(json.dumps(config))
    without = ("-c", WITHOUT_NUM2WORDS)
    said = configure(emulated, checkpoint, *without)
    assert "CONFIGURATION" not in said and "pip install num2words" in said
    assert "CONFIGURATION" in configure(emulated, checkpoint, *without, language_model_only=True)
