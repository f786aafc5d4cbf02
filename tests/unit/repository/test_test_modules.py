"""One run of pytest collects both trees: no two test modules may have one name, and no stray file lies among them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
TREES = ("tests", "emulator/tests")


def imported_name(path: Path) -> str:
    """The name under which pytest's default mode imports a file: from the first folder above that is no package."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def test_no_two_test_modules_share_a_name() -> None:
    names = Counter(imported_name(path) for tree in TREES for path in (ROOT / tree).rglob("test_*.py"))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def test_a_name_without_packages_is_the_bare_one(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    assert imported_name(tmp_path / "test_a.py") == "test_a"
    assert imported_name(tmp_path / "package" / "test_a.py") == "package.test_a"


def test_file_names_are_plain() -> None:
    """A colon cannot be checked out on Windows, and such a name was a test's key, written by mistake."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:  # not a checkout: the files of an archive are those that git listed
        return
    assert [name for name in listed.stdout.splitlines() if not re.fullmatch(r"[\w./+-]+", name)] == []
