"""A probe's result changes the forms of its own installation, and of no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascend_facts import chips, probes

DUO = chips.find("310P3")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> probes.Installation:
    """A machine with CANN 9.1.0 and driver 26.0.RC1, and no results yet."""
    (tmp_path / "cann").mkdir()
    (tmp_path / "cann" / "version.info").write_text("Name=cann\nVersion=9.1.0\n")
    (tmp_path / "driver.info").write_text("package_version=1\nVersion=26.0.RC1\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "cann"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(probes.VARIABLE, raising=False)
    monkeypatch.setattr(probes, "DRIVER_FILE", tmp_path / "driver.info")
    here = probes.installation(DUO.soc_version)
    assert (here.cann, here.driver) == ("9.1.0", "26.0.RC1")
    return here


def write(path: Path, **changes: Any) -> Path:
    of = probes.Installation("Ascend310P3", "9.1.0", "26.0.RC1")
    document = {**probes.ProbeResult(of, {"gating_rows": 4096}).document(), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_without_a_result_the_table_holds(machine: probes.Installation) -> None:
    assert probes.as_found(DUO) is DUO


def test_a_result_takes_the_table_s_place(machine: probes.Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    write(machine.file)
    assert probes.as_found(DUO).forms.gating_rows == 4096
    monkeypatch.setenv(probes.VARIABLE, "off")
    assert probes.as_found(DUO) is DUO


def test_a_result_of_other_versions_is_not_read(machine: probes.Installation) -> None:
    write(machine.file.with_name("probe-Ascend310P3-9.0.0-26.0.RC1.json"), cann="9.0.0")
    assert probes.as_found(DUO) is DUO


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"soc": "Ascend910B3"}, "of soc Ascend910B3, and here it is Ascend310P3"),
        ({"cann": "9.0.0"}, "of cann 9.0.0, and here it is 9.1.0"),
        ({"forms": {"gating_row": 1}}, "unknown field gating_row"),
        ({"forms": None}, "not a probe's result"),
        ({"schema": "ascend.probe/2"}, "schema 'ascend.probe/2' where ascend.probe/1 is read"),
        ({"emulated": True}, "measured on an emulated chip, which says nothing of this one"),
    ],
)
def test_a_result_that_was_named_and_does_not_fit_is_refused(
    machine: probes.Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv(probes.VARIABLE, str(write(tmp_path / "result.json", **changes)))
    with pytest.raises(probes.ProbeFileError, match=words) as refusal:
        probes.as_found(DUO)
    assert str(refusal.value).startswith("Run `ascend doctor --probe` again or set ASCEND_PROBE=off")


def test_what_is_written_is_what_is_read(machine: probes.Installation) -> None:
    facts, about = {"events": 1024}, {"date": "2026-11-28", "seconds": 40.5}
    written = probes.ProbeResult(machine, {"gating_rows": 2048}, facts, [{"rule": "x"}], [{"case": "y"}], about)
    written.write(machine.file)
    assert probes.read(machine.file) == written
    assert probes.as_found(DUO).forms.gating_rows == 2048


def test_a_result_of_an_emulated_chip_is_kept_nowhere_and_read_only_there(
    machine: probes.Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cann" / "version.info").write_text("Version=9.1.0\nrequired_driver=ascend-emulator\n")
    here = probes.installation(DUO.soc_version)
    assert here.emulated
    assert here.file is None
    monkeypatch.setenv(probes.VARIABLE, str(write(tmp_path / "result.json", emulated=True)))
    assert probes.as_found(DUO).forms.gating_rows == 4096
