"""The examples, run as a stranger would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .server import Server, run

EXAMPLES = Path(__file__).parents[2] / "examples"

# What the output must hold: said by the model or counted by the engine, not by the example.
SAYS = {
    "offline": r"Paris",
    "speculative": r"three, four, one, two, three[\s\S]*48 tokens; \d+ drafted, [1-9]\d* of them accepted",
    "embeddings": r"4 vectors of 576 numbers(\s+-?\d\.\d{3}  .+){3}",
    "prefill_decode": r"kv_producer: (\d+) of \1 tokens read[\s\S]*kv_consumer: (?!\1 )\d+ of \1 tokens read",
    "lora": r"no adapter: (?P<plain>.+)\nrandom: (?!(?P=plain)\n).+\n",
}


def outcome(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(EXAMPLES / f"{example}.py"), *arguments, timeout_s=600)


def test_every_example_is_run_and_listed() -> None:
    files = {path.stem for path in EXAMPLES.glob("*.py")}
    assert files == {*SAYS, "openai_client"}
    listed = set(re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text()))
    assert files == listed


@pytest.mark.slow
@pytest.mark.parametrize("example", SAYS)
def test_the_example_runs(example: str) -> None:
    done = outcome(example)
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(SAYS[example], done.stdout), done.stdout[-2000:]


@pytest.mark.slow
def test_the_client_gets_an_answer(served_smollm2: Server) -> None:
    done = outcome("openai_client", served_smollm2.base_url)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Paris" in done.stdout
