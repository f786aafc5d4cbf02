"""`make test` runs every folder of tests, once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import run_tests

    yield [folder for half in run_tests.halves() for folder in half]
    del sys.modules["run_tests"]


def test_every_test_is_in_one_half(halves: list[str]) -> None:
    assert len(halves) == len(set(halves))
    tests = [
        path.relative_to(ROOT) for tree in ("tests", "emulator/tests") for path in (ROOT / tree).rglob("test_*.py")
    ]
    lost = [path for path in tests if sum(path.is_relative_to(folder) for folder in halves) != 1]
    assert lost == []
