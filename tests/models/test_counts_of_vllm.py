"""Parameters and a token's cache as planned are those of the modules and caches that vLLM makes of a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_counts_are_vllms_own() -> None:
    command = [sys.executable, str(Path(__file__).with_name("vllm_counts.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) > 20
    wrong = [one for one in found if (one["parameters"], one["cache"]) != (one["counted"], one["cache_counted"])]
    assert wrong == []
