"""What the owner of a card sends: one file with versions, the probe's result and the tests' outcomes, and reading it.

A bundle is a .tar.gz of bundle.json (schema, versions, machine), probe.json (schema of ascend_facts.probes),
results.json (tests by outcome) and npu-smi.txt. `pytest --hardware` writes one; `ascend doctor --import` prints what it
says in the terms of chips.toml and, for a card, adds a row to src/ascend_facts/evidence.toml.
"""

from __future__ import annotations

import io
import json as json_module
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from ascend_cli.errors import OK, UsageError
from ascend_facts import chips, operators, probes
from ascend_facts.operators import Evidence

SCHEMA = "ascend.bundle/1"
FILES = ("bundle.json", "probe.json", "results.json", "npu-smi.txt")
MOST_BYTES = 64 << 20  # of one file in a bundle: it comes from elsewhere


def pack(path: Path, about: Mapping[str, Any], probe: Mapping[str, Any], results: Mapping[str, Any], smi: str) -> None:
    """Write a bundle."""
    header = {"schema": SCHEMA, **about}
    texts = {
        "bundle.json": json_module.dumps(header, indent=1),
        "probe.json": json_module.dumps(probe, indent=1),
        "results.json": json_module.dumps(results, indent=1),
        "npu-smi.txt": smi,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in texts.items():
            data = text.encode("utf-8")
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def unpack(path: Path) -> dict[str, Any]:
    """The documents of a bundle, by file name. Raises UsageError for anything else."""
    found: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name not in FILES or not member.isfile():
                    continue
                if member.size > MOST_BYTES:
                    raise UsageError(f"{path}: {member.name} has {member.size >> 20} MiB, more than any bundle's")
                file = archive.extractfile(member)
                text = file.read().decode("utf-8", errors="replace") if file else ""
                found[member.name] = json_module.loads(text) if member.name.endswith(".json") else text
        if found["bundle.json"]["schema"] != SCHEMA:
            raise UsageError(f"{path} has the schema {found['bundle.json']['schema']!r}, and {SCHEMA} is read here")
        probes.parse(found["probe.json"])
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there: name the file that `pytest --hardware` wrote") from error
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no bundle of `pytest --hardware` ({error!r})") from error
    return found


def import_bundle(path: Path, json: bool, evidence: Path = operators.EVIDENCE) -> int:
    """Print a bundle's constants and add its row to the evidence; the exit code. Raises UsageError."""
    probe = probes.parse(unpack(path)["probe.json"])
    spec = _chip(probe, path)
    values = constants(probe, spec)
    row = None if probe.of.emulated else row_of(probe, spec)
    added = row is not None and add(row, evidence)
    if json:
        from ascend_cli.output import emit_json

        emit_json({"schema": "ascend.import/1", "chip": spec.name, "emulated": probe.of.emulated, "constants": values,
                   "evidence": row, "added": added})  # fmt: skip
        return OK
    from ascend_cli.output import console

    out = console()
    kind = (
        "an EMULATED chip: no evidence of silicon" if probe.of.emulated else f"CANN {probe.of.cann}, {probe.of.driver}"
    )
    out.print(f"# {spec.name}, measured {probe.about.get('date', 'at an unknown date')} on {kind}", markup=False)
    for name, value in values.items():
        out.print(f"{name} = {_toml(value)}", markup=False, soft_wrap=True)
    if row is None:
        out.print("No row was added to the evidence: an emulated chip's result says nothing of a card.")
    elif added:
        out.print(f"Added to {evidence}: `python -m ascend_facts.operators_page` writes the pages anew.", markup=False)
    else:
        out.print(f"{evidence} has this run already.", markup=False)
    return OK


def _chip(probe: probes.ProbeResult, path: Path) -> chips.ChipSpec:
    try:
        return chips.find(probe.of.soc)
    except chips.UnknownChip as error:
        raise UsageError(f"{path}: {error}") from error


def constants(probe: probes.ProbeResult, spec: chips.ChipSpec) -> dict[str, Any]:
    """What chips.toml would say, by its names: measured times, and forms that differ from the table's."""
    facts, found = probe.facts, {}
    for fact, name in (("launch_us", "launch_us"), ("bandwidth_gbps", "bandwidth_gbps")):
        if fact in facts:
            found[name] = facts[fact]
    times = facts.get("all_reduce_us", {})
    if times:
        smallest, largest = min(times, key=int), max(times, key=int)
        found["card_link.latency_us"] = times[smallest]
        if times[largest]:
            found["card_link.gbps"] = round(int(largest) / times[largest] / 1e3, 2)
    for name, value in probe.forms.items():
        table = getattr(spec.forms, name)
        if (list(table) if isinstance(table, tuple) else table) != value:
            found[f"forms.{name}"] = value
    return found


def row_of(probe: probes.ProbeResult, spec: chips.ChipSpec) -> Evidence:
    """The run's row. Raises UsageError where it does not say what it was measured with."""
    if probe.of.cann is None or probe.of.driver is None:
        raise UsageError("the bundle does not say which CANN or driver it was measured with: it is no evidence")
    right = {case["case"] for case in probe.cases if case["status"] == "ok"}
    tried = {case["case"] for case in probe.cases}
    names = []
    for operator, cases in cases_by_operator(spec.family).items():
        if cases & tried and cases & tried <= right:
            names.append(operator)
    return Evidence(
        probe.of.soc, probe.of.cann, probe.of.driver, str(probe.about.get("date", "")), spec.family, len(tried),
        len(right), tuple(sorted(names)), tuple(finding["rule"] for finding in probe.findings),
    )  # fmt: skip


def cases_by_operator(family: str) -> dict[str, set[str]]:
    """Cases of the probe by the operators that they launch, as recorded on emulated chips."""
    file = resources.files("ascend_cli.doctor.probe") / "launches.json"
    recorded = json_module.loads(file.read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for case, names in recorded.get(family, {}).items():
        for name in names:
            found.setdefault(name, set()).add(case)
    return found


def add(row: Evidence, path: Path) -> bool:
    """Append a run to the evidence; False where it is there already. Raises UsageError."""
    if row in operators.evidence(path):
        return False
    lines = ["", "[[run]]", *(f"{name} = {_toml(value)}" for name, value in asdict(row).items())]
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): import in a checkout of the repository"
        ) from error
    return True


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json_module.dumps(value, ensure_ascii=False)
