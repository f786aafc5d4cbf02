"""The table of environment variables is what the sources use, and the pages are what the table says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascend_facts import environment
from ascend_plugin import ENVIRONMENT_DEFAULTS

ROOT = Path(__file__).parents[3]
SOURCES = ("src", "emulator/python/ascend_emulator")
# Who reads the variables that start so: a literal of this shape is one, wherever it stands.
PREFIXES = (
    "ACL", "ASCEND", "HCCL", "HF", "LD", "MODELSCOPE", "NPU", "OMP", "OPENAI", "PYTORCH", "RAY", "TASK_QUEUE", "TORCH",
    "TRANSFORMERS", "VLLM", "XDG",
)  # fmt: skip
NAMED_SO = re.compile(rf"({'|'.join(PREFIXES)})(_[A-Z0-9]+)+")
ANY_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def names_in_python() -> set[str]:
    """Literals that name a variable by their beginning, or by being looked up in something called an environment."""
    found = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED_SO.fullmatch(node.value):
                    found.add(node.value)
                found |= {name for name in looked_up(node) if ANY_NAME.fullmatch(name)}
    return found


def looked_up(node: ast.AST) -> Iterator[str]:
    """What this asks of something called an environment: e["X"], e.get("X"), "X" in e."""
    keys: list[ast.expr] = []
    if isinstance(node, ast.Subscript) and "environ" in ast.unparse(node.value):
        keys = [node.slice]
    elif isinstance(node, ast.Call) and "environ" in ast.unparse(node.func):
        keys = node.args[:1]
    elif isinstance(node, ast.Compare) and any("environ" in ast.unparse(side) for side in node.comparators):
        keys = [node.left]
    for key in keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def names_in_c() -> set[str]:
    """What the emulator's libraries ask the environment for, by getenv or by a function of theirs that does."""
    asks = re.compile(r'"((?:ASCEND|HCCL)_[A-Z0-9_]+)"')
    return {
        name
        for path in (ROOT / "emulator/src").rglob("*.cpp")
        if "getenv" in (text := path.read_text(encoding="utf-8"))
        for name in asks.findall(text)
        if not name.startswith(("ASCEND_ERROR", "HCCL_E_"))
    }


def test_the_table_has_what_the_sources_use_and_nothing_else() -> None:
    used = names_in_python() | names_in_c()
    listed = {variable.name for variable in environment.variables()}
    assert used - listed == set(), "add them to src/ascend_facts/environment.toml"
    assert listed - used == set(), "nothing uses them any more: take them out of src/ascend_facts/environment.toml"


def test_defaults_that_the_plugin_sets() -> None:
    listed = {v.name: v.default for v in environment.variables() if v.access == "sets where unset"}
    assert ENVIRONMENT_DEFAULTS.items() <= listed.items()


def test_entries_say_how_and_what() -> None:
    names = [variable.name for variable in environment.variables()]
    assert len(names) == len(set(names))
    for variable in environment.variables():
        assert variable.package in environment.TITLES["en"], variable.name
        assert variable.access in environment.ACCESSES["en"], variable.name
        assert variable.en and variable.zh, variable.name


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_written_from_the_table(language: environment.Language) -> None:
    page = ROOT / "docs" / environment.PAGES[language]
    assert page.read_text(encoding="utf-8") == environment.render(language), "run: python -m ascend_facts.environment"
