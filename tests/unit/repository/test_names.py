"""Names: what the project once called things by, and the one spelling of identifiers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PUBLIC = ("src", "conformance", "benchmarks", "scripts", "tests", "emulator", "docs", "examples", ".github")
TEXT = {".py", ".md", ".toml", ".json", ".yaml", ".yml", ".j2", ".cpp", ".h", ".txt", ".c", ".sh"}
PYTHON = ("src", "conformance", "benchmarks", "scripts", "tests", "examples", "emulator/python")
# Names that say something only to those who were there; the brackets keep this file from finding itself.
FORMER_NAMES = re.compile(r"(?i)\b[b]rief\b|_[b]rief|[b]rief_|[f]irst.?user")
# British forms; an identifier has the American one. Words that end so in both are in the second list.
BRITISH = re.compile(
    r"(?i)\w*(?:[a-z]{2}is(?:e|ed|er|es|ing|ation)|colours?|coloured|behaviours?|neighbours?|favou?rite|honours?|centres?|"
    r"licences?|modell(?:ed|ing)|labell(?:ed|ing)|cancell(?:ed|ing)|grey)"
)
ALIKE = re.compile(
    r"(?i)\w*(?:wise|noises?|rais(?:e[ds]?|ing)|promised?|precise|concise|advised?|revised?|exercised?|rise|poise)"
)


def public_files() -> Iterator[Path]:
    for folder in PUBLIC:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in TEXT and not {"build", "__pycache__", "lib"} & set(path.relative_to(ROOT).parts):
                yield path
    yield from ROOT.glob("*.md")


def test_former_names_are_gone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in public_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if FORMER_NAMES.search(line)
    ]
    assert found == []


def identifiers(tree: ast.AST) -> Iterator[str]:
    """What this code names: functions, classes, arguments and whatever it assigns to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def words(identifier: str) -> list[str]:
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)


def test_identifiers_are_spelled_the_american_way() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in PYTHON
        for path in (ROOT / folder).rglob("*.py")
        for name in identifiers(ast.parse(path.read_text(encoding="utf-8")))
        if any(BRITISH.fullmatch(word) and not ALIKE.fullmatch(word) for word in words(name))
    }
    assert sorted(found) == []


def code_of(text: str) -> str:
    """C++ without its comments and texts, which are prose."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


def test_identifiers_of_the_emulator_are_spelled_the_american_way() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "emulator").rglob("*")
        if path.suffix in {".cpp", ".h"} and "build" not in path.parts
        for name in {path.stem, *re.findall(r"[A-Za-z_]\w+", code_of(path.read_text(encoding="utf-8")))}
        if any(BRITISH.fullmatch(word) and not ALIKE.fullmatch(word) for word in words(name))
    }
    assert sorted(found) == []


def test_the_rule_tells_the_spellings_apart() -> None:
    british = ["normalised", "quantise", "colours", "initialising", "Centre", "modelled", "optimisation"]
    american = [
        "normalized",
        "noise",
        "otherwise",
        "raised",
        "promise",
        "precise",
        "bitwise",
        "center",
        "modeled",
        "rise",
    ]
    assert all(BRITISH.fullmatch(word) and not ALIKE.fullmatch(word) for word in british)
    assert not any(BRITISH.fullmatch(word) and not ALIKE.fullmatch(word) for word in american)
