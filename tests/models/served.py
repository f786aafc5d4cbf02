"""What the tests of served models share: a checkpoint with a tokenizer, and Python run where no NPU is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ascend_cli.registry.smollm2 import find_gguf
from conformance.places import CPU_ONLY

MAKE = """
import json, sys
from pathlib import Path
sys.modules["torch_npu"] = None
from dataclasses import replace
from gguf import GGUFReader
from conformance.architectures import architectures
from conformance.checkpoint import write_checkpoint
from ascend_cli.registry.smollm2 import write_tokenizer
from conformance.tiny import CHAT_TEMPLATE, VOCABULARY
name, folder, gguf, changes = sys.argv[1:]
entry = architectures()[name]
config = {**entry.config, "vocab_size": VOCABULARY, **json.loads(changes)}
made = write_checkpoint(replace(entry, config=config), Path(folder))
write_tokenizer(GGUFReader(gguf), made, CHAT_TEMPLATE)
print(made)
"""


def on_the_cpu(script: str, *arguments: str, text: str | None = None) -> str:
    """The last line that a script prints, run in a process of its own."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=os.environ | CPU_ONLY, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def make_checkpoint(architecture: str, folder: Path, changes: str = "{}") -> str:
    """The folder of a conformance checkpoint with SmolLM2's vocabulary; changes (JSON) are made to its config."""
    return on_the_cpu(MAKE, architecture, str(folder), str(find_gguf()), changes)
