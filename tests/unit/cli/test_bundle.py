"""Bundles of `pytest --hardware`: what `ascend doctor --import` takes from them, and what it refuses."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ascend_cli.doctor import bundle
from ascend_facts import operators, probes

from .conftest import Ascend

FACTS = {"launch_us": 4.2, "bandwidth_gbps": 180.5, "all_reduce_us": {"1024": 31.0, "16777216": 900.0}}


def packed(path: Path, emulated: bool = False, driver: str | None = "26.0.RC1", **changes: Any) -> Path:
    cases = [{"case": name, "group": "layer", "status": "ok"} for name in bundle_cases()]
    cases[0]["status"] = changes.pop("first", "ok")
    of = probes.Installation("Ascend310P3", "9.1.0", driver, emulated)
    forms = {"gating_rows": 0, "device_random": False}
    result = probes.ProbeResult(of, forms, FACTS, [{"rule": "saturation"}], cases, {"date": "2026-11-28"})
    bundle.pack(path, {"date": "2026-11-28"}, {**result.document(), **changes}, {"tests": {}}, "npu-smi\n")
    return path


def bundle_cases() -> list[str]:
    return sorted(set().union(*bundle.cases_by_operator("310p").values()))


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.toml"
    path.write_text(operators.EVIDENCE.read_text())
    return path


def test_a_card_s_bundle_becomes_constants_and_a_row(
    tmp_path: Path, evidence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = packed(tmp_path / "b.tar.gz")
    assert bundle.import_bundle(path, True, evidence) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["constants"] == {
        "launch_us": 4.2,
        "bandwidth_gbps": 180.5,
        "card_link.latency_us": 31.0,
        "card_link.gbps": 18.64,
        "forms.gating_rows": 0,
    }
    (row,) = operators.evidence(evidence)[len(operators.evidence()) :]
    assert (row.soc, row.cann, row.driver, row.findings) == ("Ascend310P3", "9.1.0", "26.0.RC1", ("saturation",))
    assert "aclnnRmsNorm" in row.operators
    assert bundle.import_bundle(path, True, evidence) == 0
    assert json.loads(capsys.readouterr().out)["added"] is False, "the same run is one row"


def test_evidence_raises_the_level_of_what_ran_right(tmp_path: Path, evidence: Path) -> None:
    bundle.import_bundle(packed(tmp_path / "b.tar.gz"), True, evidence)
    seen = operators.seen_on_silicon(operators.evidence(evidence))
    norm = operators.operators()["aclnnRmsNorm"]
    assert norm.level("310p", seen) == operators.SILICON
    assert norm.level("310p", {}) == operators.PROVEN
    assert norm.level("910b", seen) == operators.PROVEN


def test_an_operator_of_which_one_case_failed_is_not_seen(tmp_path: Path, evidence: Path) -> None:
    bundle.import_bundle(packed(tmp_path / "b.tar.gz", first="wrong"), True, evidence)
    (row,) = operators.evidence(evidence)[len(operators.evidence()) :]
    touched = {name for name, cases in bundle.cases_by_operator("310p").items() if bundle_cases()[0] in cases}
    assert touched
    assert touched & set(row.operators) == set()


def test_an_emulated_chip_s_bundle_is_no_evidence(
    tmp_path: Path, evidence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evidence.read_text()
    assert bundle.import_bundle(packed(tmp_path / "b.tar.gz", emulated=True), False, evidence) == 0
    said = capsys.readouterr().out
    assert "EMULATED chip: no evidence of silicon" in said
    assert "No row was added" in said
    assert evidence.read_text() == before


def test_what_is_no_bundle_is_refused_in_a_line(ascend: Ascend, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    packed(tmp_path / "schema.tar.gz", forms=None)
    for name, words in (
        ("missing", "is not there: name the file that `pytest --hardware` wrote"),
        ("text", "is no bundle of `pytest --hardware`"),
        ("empty.tar.gz", "is no bundle of `pytest --hardware`"),
        ("schema.tar.gz", "is no bundle of `pytest --hardware`"),
    ):
        answer = ascend("doctor", "--import", tmp_path / name)
        assert answer.code == 2
        assert words in answer.error_line


def test_a_run_without_versions_is_no_evidence(tmp_path: Path, evidence: Path) -> None:
    with pytest.raises(Exception, match="does not say which CANN or driver"):
        bundle.import_bundle(packed(tmp_path / "b.tar.gz", driver=None), True, evidence)


def test_options_that_exclude_each_other(ascend: Ascend) -> None:
    assert "exclude each other" in ascend("doctor", "--probe", "--first-run", "x").error_line
    assert "belong to --probe" in ascend("doctor", "--group", "copies").error_line
    assert "none of copies, integers" in ascend("doctor", "--probe", "--group", "no").error_line
