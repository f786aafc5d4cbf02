"""The command pages: every `ascend` line in them is one that the command line accepts, in both languages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ascend_cli.cli import app

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def command_lines(page: Path) -> Iterator[str]:
    """Indented lines that start with `ascend`, continued lines joined, comments and pipes cut off."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4}(ascend .*)$", text, re.MULTILINE):
        yield re.split(r"\s+(?:#|\||>|&&)", line)[0]


LINES = [(page, line) for page in PAGES for line in command_lines(page)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page.name}: {line}" for page, line in LINES])
def test_the_line_is_accepted(page: Path, line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    if words[0].startswith("--"):
        assert any(words[0] in parameter.opts for parameter in command.params)
        return
    context = command.make_context("ascend", list(words), resilient_parsing=True)
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, line
        command = command.commands[name]
    command.make_context(name, words, parent=context)


def test_every_command_has_a_page_in_both_languages() -> None:
    for folder in ("commands", "zh/commands"):
        pages = {page.stem for page in (DOCS / folder).glob("*.md")}
        assert {"doctor", "plan", "deploy", "serve", "bench", "top", "emulate"} <= pages
    assert (DOCS / "journey.md").exists() and (DOCS / "zh/journey.md").exists()
