"""`ascend doctor --probe` on emulated chips: every rule of silicon is found by its name, and nothing beyond."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.launcher import Machine

from ascend_cli.doctor.probe import catalogue, findings
from ascend_cli.doctor.probe.case import GROUPS
from ascend_facts import chips, operators, probes
from conformance import probe_launches
from conformance.forms import read, recorded_to

pytestmark = pytest.mark.slow  # processes that import torch, on chips whose time is modelled

RULES = Path(__file__).parents[2] / "emulator/src/silicon/rules.toml"
CHIP_OF = {"310P": "310P3", "A2": "910B3"}
FORMS_AT_LEAST = 130


def rules() -> list[tuple[str, str]]:
    """(chip, rule) of every rule on the chips that are looked at."""
    table = tomllib.loads(RULES.read_text())["rule"]
    return [(CHIP_OF[family], rule["name"]) for rule in table for family in rule["chips"] if family in CHIP_OF]


def groups_of(rule: str, chip: str) -> list[str]:
    """Those with cases that tell whether a chip has the rule."""
    spec = chips.find(chip)
    return [group for group in GROUPS if any(case.rule == rule for case in catalogue.cases_of(group, spec))]


def probe(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    ascend = str(Path(sys.executable).with_name("ascend"))
    return machine.run([ascend, "doctor", "--probe", *arguments], capture_output=True, text=True)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["schema"] == probes.SCHEMA
    assert result["emulated"]
    return result


def test_every_rule_of_silicon_has_a_finding_and_cases() -> None:
    for chip, rule in rules():
        assert rule in findings.RULES
        assert groups_of(rule, chip), f"no case tells whether a {chip} has {rule}"


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_nothing_is_found_on_a_chip_without_quirks(emulated: Callable[..., Machine], chip: str, tmp_path: Path) -> None:
    with recorded_to(tmp_path / "forms.txt"):
        result = result_of(probe(emulated(chip=chip, count=2, rules="none", clock="both"), "--json"))
    bad = [case for case in result["cases"] if case["status"] not in ("ok", "skipped")]
    assert [case["case"] for case in bad] == ["npu_apply_rotary_pos_emb, interleaved"], "documented to be refused"
    assert result["findings"] == []
    print(f"{chip}: {len(result['cases'])} forms in {result['seconds']} s, nothing found")
    assert len(result["cases"]) >= FORMS_AT_LEAST
    assert all(case["status"] == "ok" for case in result["cases"] if case["group"] == "collectives"), "two chips"
    launched = {operators.split(form)[:2] for form in read(tmp_path / "forms.txt")}
    left_out = operators.launched_on(chips.find(chip).family) - launched - NOT_PROBED
    assert sorted(left_out) == [], "forms that the plugin launches and no case of the probe does"


# Launched while a model is loaded or by its own code outside steps, each for a reason.
NOT_PROBED: set[tuple[str, str]] = set()


@pytest.mark.parametrize(("chip", "rule"), rules())
def test_a_quirk_is_found_by_its_name(emulated: Callable[..., Machine], chip: str, rule: str) -> None:
    groups = [argument for group in groups_of(rule, chip) for argument in ("--group", group)]
    done = probe(emulated(chip=chip, count=2, rules=f"none,{rule}", clock="both"), "--json", *groups)
    result = result_of(done)
    assert [finding["rule"] for finding in result["findings"]] == [rule]
    print(f"{chip}: {rule} found, {result['findings'][0]['said'][:100]}")
    assert done.returncode == 0, "the plugin knows it"
    assert result["kept"] is None


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_what_each_case_launches_is_recorded(chip: str) -> None:
    """`python -m conformance.probe_launches` writes it; without it an imported result speaks of no operator."""
    spec = chips.find(chip)
    names = {case.name for group in GROUPS for case in catalogue.cases_of(group, spec)}
    recorded = json.loads(probe_launches.TARGET.read_text())[spec.family]
    assert set(recorded) - names == set(), "cases that are no more"
    assert {name for name in names - set(recorded) if "uploa" not in name} <= LAUNCH_NOTHING
    known = operators.operators()
    forms = {operator for launched in recorded.values() for operator in launched}
    assert {name for name in known if any(spec.family in form.families for form in known[name].forms)} <= forms


LAUNCH_NOTHING = {
    "events and streams that are left",
    "npu_apply_rotary_pos_emb, interleaved",
    "copy_ from the host, int32",
    "scratch memory of FusedInferAttentionScore",  # without the rule it asks for none
}


CHOICES = """
import json, torch  # which brings CANN's libraries into the process, as in every process of vLLM's
from ascend_plugin import detection
forms = detection.current_chip().forms
print("CHOICES", json.dumps([forms.gating_rows, forms.gating_float32, forms.routing_width_multiple]))
"""


@pytest.mark.parametrize(("rules", "choices"), [("none", [0, True, 1]), ("all", [1024, False, 32])])
def test_the_plugin_takes_the_forms_that_a_probe_found_right(
    emulated: Callable[..., Machine], tmp_path: Path, rules: str, choices: list[Any]
) -> None:
    machine, file = emulated(chip="310P3", count=1, rules=rules), tmp_path / "result.json"
    done = probe(machine, "--group", "experts", "--output", str(file))
    assert f"ASCEND_PROBE={file} makes the plugin read it" in " ".join(done.stdout.split()), done.stdout + done.stderr
    asked = machine.run(
        [sys.executable, "-c", CHOICES], env={"ASCEND_PROBE": str(file)}, capture_output=True, text=True
    )
    (line,) = (line for line in asked.stdout.splitlines() if line.startswith("CHOICES "))
    assert json.loads(line.removeprefix("CHOICES ")) == choices
