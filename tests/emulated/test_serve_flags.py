"""The table of vLLM's options against vLLM's own parser, and each of its refusals as a server meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ascend_facts import serve_flags

HERE = Path(__file__).parent


def ask(emulated: Callable, chip: str, *arguments: str) -> Any:
    command = [sys.executable, str(HERE / "flags.py"), *arguments]
    done: subprocess.CompletedProcess[str] = emulated(chip=chip).run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("ANSWER "))


def test_every_option_has_a_row(emulated: Callable) -> None:
    """A new vLLM's options are rows "not tried" until somebody has."""
    assert [row.name for row in serve_flags.flags()] == ask(emulated, "310P3", "names")


@pytest.mark.parametrize("chip", ["310P3", pytest.param("910B3", marks=pytest.mark.slow)])
def test_refusals(emulated: Callable, qwen3: Path, chip: str) -> None:
    """Weights are not read: a configuration is all that is made."""
    rows = [row for row in serve_flags.flags() if row.refused_with and row.chip in ("", chip)]
    said = ask(emulated, chip, str(qwen3), json.dumps([row.refused_with for row in rows]))
    missing = {row.name: answer for row, answer in zip(rows, said, strict=True) if row.says not in answer}
    assert not missing
