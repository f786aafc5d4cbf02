"""docs/silicon.md: each of its 42 rows names commits and tests that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([0-9a-f ]+) \| ([^|]+) \|$", re.MULTILINE)
SECTION = (ROOT / "docs/silicon.md").read_text(encoding="utf-8").partition("## Row by row")[2]
ROWS = ROW.findall(SECTION)


def test_every_row_is_there_once() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 43))


def test_every_named_test_exists() -> None:
    named = {name for *_, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)}
    assert len(named) > 30
    for name in sorted(named):
        file, _, function = name.partition("::")
        functions = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
                     if isinstance(node, ast.FunctionDef)}  # fmt: skip
        assert function in functions, name


def test_every_commit_is_of_this_history() -> None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("a shallow clone, or no clone: no history to look in")
    for commit in sorted({commit for _, _, _, commits, _ in ROWS for commit in commits.split()}):
        assert git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0, commit
