"""Whoever reads the emulator's counters asks for names that it writes: slow tests that do are seldom run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
READERS = ("tests", "benchmarks", "conformance", "scripts", "src", "emulator/tests", "emulator/python")
WRITTEN = re.compile(r'\.add\("(\w+)"')
ASKED = re.compile(r'\b(?<!memory_)stats(?:\(\))?\["(\w+)"\]')


def asked_in(text: str) -> set[str]:
    return set(ASKED.findall(text))


def test_counters_that_are_asked_for_are_written() -> None:
    report = (ROOT / "emulator/src/runtime/report.cpp").read_text()
    written = set(WRITTEN.findall(report[report.index("std::string stats_json") :]))
    assert {"synchronizations", "copies", "launches_total"} <= written
    files = [path for folder in READERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    unknown = {str(path.relative_to(ROOT)): asked_in(path.read_text()) - written for path in files}
    assert {path: names for path, names in unknown.items() if names} == {}


def test_a_name_in_another_spelling_is_found() -> None:
    assert asked_in('waits = stats["synchronisations"]') == {"synchronisations"}
    assert asked_in('counters.stats()["copies"]["count"], memory_stats["peak"]') == {"copies"}
