"""No change moves launches, copies, waits or modelled time of a step unless its author says so (--accept)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.steps import cases, record


def test_the_record_has_every_step_and_no_other() -> None:
    steps = {
        f"{chip}, {engine.name}, {step.name}"
        for chip in cases.CHIPS
        for engine in cases.ENGINES
        for step in engine.steps
    }
    assert len(steps) >= 30
    assert record.read().keys() == steps, "count them again: python -m tests.steps --accept"


def test_what_moved_is_said() -> None:
    known = {"a": {"launches": 10.0, "bytes": 4.0}, "b": {"launches": 1.0}}
    counted = {"a": {"launches": 12.0, "bytes": 4.0}, "c": {"launches": 1.0}}
    assert record.differences(known, counted) == ["a: launches 10 -> 12 (+20.0%)", "c: not recorded yet"]


@pytest.mark.slow  # engines
@pytest.mark.parametrize("chip", cases.CHIPS)
def test_steps_are_as_recorded(chip: str, tmp_path: Path) -> None:
    counted = record.count(tmp_path, [chip], [engine.name for engine in cases.ENGINES])
    moved = record.differences(record.read(), counted)
    assert not moved, "\n".join([*moved, "If that was meant: python -m tests.steps --accept"])
