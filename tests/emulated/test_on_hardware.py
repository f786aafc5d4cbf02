"""`pytest --hardware`, an emulated chip standing in for the card: what is skipped, what runs, and the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ascend_emulator.launcher import Machine

from ascend_cli.doctor import bundle
from ascend_facts import probes

pytestmark = pytest.mark.slow  # a whole session of pytest, and a probe's timing group

ROOT = Path(__file__).parents[2]
ITEMS = (
    "tests/emulated/test_operator_forms.py::test_ranks_embed_without_int64_arithmetic",
    "tests/emulated/test_operator_forms.py::test_gating_elsewhere_takes_float32_and_any_number_of_tokens",
    "tests/emulated/test_operator_forms.py::test_a_probe_s_result_changes_the_plugin_s_choices",
    "tests/unit/test_versions.py",
)


def hardware(machine: Machine, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--hardware", "-q", "-rs", "-p", "no:cacheprovider", *options, *ITEMS]
    environment = {"COLUMNS": "250"}
    arguments = [f"--basetemp={tmp_path / 'inner'}", f"--bundle={tmp_path / 'bundle.tar.gz'}"]
    return machine.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_session_on_a_card_skips_with_reasons_and_leaves_a_bundle(
    emulated: Callable[..., Machine], tmp_path: Path
) -> None:
    done = hardware(emulated(chip="310P3"), tmp_path, "--no-probe")
    assert done.returncode == 0, done.stdout + done.stderr
    for reason in ("for 910B3; this machine has 310P3", "needs an emulated machine", "needs no chip: run it without"):
        assert reason in done.stdout, reason
    assert "attach it to an issue" in done.stdout
    found = bundle.unpack(tmp_path / "bundle.tar.gz")
    assert found["bundle.json"]["emulated"] is True
    assert found["bundle.json"]["versions"]["torch_npu"]
    probe = probes.parse(found["probe.json"])
    assert probe.of.soc == "Ascend310P3"
    assert {"launch_us", "copy_65536_kib_us", "products_us", "attention_us", "events_available"} <= set(probe.facts)
    outcomes = {name.rpartition("::")[2]: each["outcome"] for name, each in found["results.json"]["tests"].items()}
    assert outcomes.pop("test_ranks_embed_without_int64_arithmetic[hardware]") == "passed"
    assert set(outcomes.values()) == {"skipped"}
    assert not any("test_versions" in name for name in found["results.json"]["tests"]), "what needs no chip is left out"


def test_an_emulated_bundle_is_imported_as_no_evidence(emulated: Callable[..., Machine], tmp_path: Path) -> None:
    hardware(emulated(chip="310P3"), tmp_path, "--no-probe")
    ascend = str(Path(sys.executable).with_name("ascend"))
    command = [ascend, "doctor", "--import", str(tmp_path / "bundle.tar.gz"), "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["emulated"] is True
    assert answer["evidence"] is None and answer["added"] is False
    assert answer["constants"]["launch_us"] > 0


def test_the_option_is_there_where_the_emulator_is_not_installed(tmp_path: Path) -> None:
    """The packages of this environment less the emulator's: links to all others."""
    packages = tmp_path / "packages"
    packages.mkdir()
    import ascend_emulator

    for entry in Path(ascend_emulator.__file__).parents[1].iterdir():
        if not entry.name.startswith("ascend_emulator"):
            (packages / entry.name).symlink_to(entry)
    program = (
        f"import sys, site; sys.path[:] = [p for p in sys.path if not p.endswith('site-packages')]; "
        f"site.addsitedir({str(packages)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(packages)!r}); {program}"]
    arguments = ["--hardware", "--no-probe", "-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    chosen = [*ITEMS[:1], *ITEMS[2:]]
    done = subprocess.run([*command, *arguments, "--collect-only", *chosen], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_ranks_embed_without_int64_arithmetic[hardware]" in done.stdout
