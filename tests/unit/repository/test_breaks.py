"""Each test of the battery can be seen to fail: its mark has edits, and they fit the files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import breaks
from tests.reliability.switches import PARAMETERS, SWITCHES, Edit

FOLDER = breaks.ROOT / breaks.BATTERY


def test_every_test_has_a_mark() -> None:
    tests = breaks.tests_in(FOLDER)
    assert len(tests) > 30
    assert [name for name, texts in tests.items() if not texts] == []


def test_marks_and_table_name_the_same() -> None:
    assert {one.text for one in breaks.marked(FOLDER)} == set(SWITCHES)
    assert set(PARAMETERS) <= {one.name for one in breaks.marked(FOLDER)}


@pytest.mark.parametrize("text", SWITCHES)
def test_its_edits_can_be_made(text: str) -> None:
    switch = SWITCHES[text]
    assert switch.edits
    assert [why for edit in switch.edits if (why := breaks.problem(edit, breaks.ROOT))] == []
    assert all(edit.old != edit.new for edit in switch.edits)


def test_an_edit_that_rots_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\none\n", encoding="utf-8")
    assert breaks.problem(Edit("a.py", "one", "two"), tmp_path) == "a.py has this 2 times: 'one'"
    assert breaks.problem(Edit("b.py", "one", "two"), tmp_path) == "b.py is not there"
    assert breaks.problem(Edit("a.py", "one\none", "two"), tmp_path) == ""


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        ("", breaks.PASSED),
        ('<failure message="AssertionError: 1 != 2"/>', breaks.FAILED),
        ('<failure message="assert 1 == 2"/>', breaks.FAILED),
        ('<failure message="subprocess.TimeoutExpired: Command"/>', breaks.FAILED),
        ('<failure message="Failed: DID NOT RAISE UsageError"/>', breaks.FAILED),
        ('<failure message="Failed: Timeout (&gt;300.0s) from pytest-timeout."/>', breaks.HUNG),
        ('<failure message="KeyError: 1"/>', "failure (!)"),
        ('<error message="failed on setup with &quot;AssertionError&quot;"/>', "error (!)"),
        ('<skipped message="root"/>', "skipped (!)"),
    ],
)
def test_only_a_failure_of_the_test_s_own_counts(inside: str, what: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite><testcase>{inside}</testcase></testsuite></testsuites>")
    assert breaks.verdict(report)[0] == what
    assert (what in breaks.AS_IT_SHOULD) == (what in (breaks.FAILED, breaks.HUNG))


def test_no_report_and_no_test_do_not_count(tmp_path: Path) -> None:
    assert breaks.verdict(tmp_path / "none.xml")[0] not in breaks.AS_IT_SHOULD
    (tmp_path / "empty.xml").write_text("<testsuites><testsuite/></testsuites>")
    assert breaks.verdict(tmp_path / "empty.xml")[0] not in breaks.AS_IT_SHOULD
