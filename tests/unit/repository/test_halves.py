"""`make test` runs every folder of tests, once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("run_tests")
    del sys.modules["run_tests"]


def test_every_test_is_in_one_half(script: ModuleType) -> None:
    halves = [folder for half in script.halves() for folder in half]
    assert len(halves) == len(set(halves))
    tests = [
        path.relative_to(ROOT) for tree in ("tests", "emulator/tests") for path in (ROOT / tree).rglob("test_*.py")
    ]
    lost = [path for path in tests if sum(path.is_relative_to(folder) for folder in halves) != 1]
    assert lost == []


@pytest.mark.parametrize(
    ("codes", "verdict"), [((0, 0), 0), ((0, 5), 0), ((5, 5), 5), ((1, 0), 1), ((0, 2), 2), ((5, 1), 1), ((0, -9), -9)]
)
def test_no_half_fails_unseen(script: ModuleType, codes: tuple[int, int], verdict: int) -> None:
    assert script.verdict(*codes) == verdict
