"""The table of environment variables is what the sources use, and the pages are what the table says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ascend_facts import environment
from ascend_plugin import ENVIRONMENT_DEFAULTS

ROOT = Path(__file__).parents[3]
SOURCES = ("src", "emulator/python/ascend_emulator")
# Literals that are written like a variable's name and are none.
OTHER_NAMES = {"W8A8_DYNAMIC"}


def names_in_python() -> set[str]:
    """Every string literal of the packages that is written like the name of an environment variable."""
    shape = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
    return {
        node.value
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and shape.fullmatch(node.value)
    }


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
    used = (names_in_python() | names_in_c()) - OTHER_NAMES
    listed = {variable.name for variable in environment.variables()}
    assert used - listed == set(), "add them to src/ascend_facts/environment.toml (or to OTHER_NAMES here)"
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
