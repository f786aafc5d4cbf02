"""What `ascend doctor --probe` found on an installation: forms of operators that take the place of the chip table's.

A result belongs to one chip with one CANN and one driver, which are in its file's name and in the file:

    {"schema": "ascend.probe/1", "soc": "Ascend310P3", "cann": "9.1.0", "driver": "26.0.RC1", "emulated": false,
     "forms": {"gating_rows": 4096}, ...}

`forms` holds fields of chips.Forms; the rest (facts, findings, cases) is for people and for `ascend doctor --import`.
A result of an emulated chip says so, is kept nowhere by itself and is refused on a real one. Imports neither torch nor
anything that touches a device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ascend_facts import cann
from ascend_facts.chips import ChipSpec, ChipTableError, with_forms

SCHEMA = "ascend.probe/1"
VARIABLE = "ASCEND_PROBE"
NONE = "off"
DRIVER_FILE = Path("/usr/local/Ascend/driver/version.info")
CANN_HOMES = tuple(f"{cann.ROOTS[0]}/{home}" for home in cann.ACTIVE)
EMULATOR = "ascend-emulator"  # an emulated CANN names it in the files of its version


class ProbeFileError(ValueError):
    """A probe's result that cannot be used; the message says which file, and what to do."""


@dataclass(frozen=True)
class Installation:
    """What a probe's result holds for; None for a version that is not recorded on this machine."""

    soc: str
    cann: str | None
    driver: str | None
    emulated: bool = False

    @property
    def file(self) -> Path | None:
        """Where its result is kept.

        None where a version is not known, so that no result can be known to be its own, and for an emulated chip.
        """
        if self.cann is None or self.driver is None or self.emulated:
            return None
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "ascend" / f"probe-{self.soc}-{self.cann}-{self.driver}.json"


@dataclass(frozen=True)
class ProbeResult:
    """One run of `ascend doctor --probe`: what writer and reader share."""

    of: Installation
    forms: Mapping[str, Any]  # fields of chips.Forms
    facts: Mapping[str, Any] = field(default_factory=dict)  # measured; names have their units
    findings: Sequence[Mapping[str, Any]] = field(default_factory=list)
    cases: Sequence[Mapping[str, Any]] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)  # date, versions, seconds

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "schema": SCHEMA,
            "soc": self.of.soc,
            "cann": self.of.cann,
            "driver": self.of.driver,
            "emulated": self.of.emulated,
            **self.about,
            "forms": dict(self.forms),
            "facts": dict(self.facts),
            "findings": list(self.findings),
            "cases": list(self.cases),
        }

    def write(self, path: Path) -> None:
        """Keep it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        text = json.dumps(self.document(), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)


def read(path: Path) -> ProbeResult:
    """A result that was kept. Raises ProbeFileError."""
    remedy = f"Run `ascend doctor --probe` again or set {VARIABLE}={NONE}"
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if result["schema"] != SCHEMA:
            raise ValueError(f"schema {result['schema']!r} where {SCHEMA} is read")
        return parse(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeFileError(f"{remedy}: {path} is not a probe's result ({error!r}).") from error


def parse(document: Mapping[str, Any]) -> ProbeResult:
    """The result in a document of SCHEMA. Raises KeyError, TypeError or ValueError for anything else."""
    of = Installation(document["soc"], document["cann"], document["driver"], bool(document["emulated"]))
    known = {"schema", "soc", "cann", "driver", "emulated", "forms", "facts", "findings", "cases"}
    about = {name: value for name, value in document.items() if name not in known}
    findings, cases = (list(document.get(name, [])) for name in ("findings", "cases"))
    return ProbeResult(of, dict(document["forms"]), dict(document.get("facts", {})), findings, cases, about)


def installation(soc: str) -> Installation:
    """The versions of this machine."""
    homes = [home for home in (os.environ.get("ASCEND_HOME_PATH"), *CANN_HOMES) if home]
    found = next((file for home in homes for name in cann.FILES if _version(file := Path(home) / name)), None)
    emulated = found is not None and EMULATOR in _text(found)
    return Installation(soc, _version(found) if found else None, _version(DRIVER_FILE), emulated)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(file: Path) -> str | None:
    for line in _text(file).splitlines():
        name, found, value = line.partition("=")
        if found and name.strip().lower() == "version" and value.strip():
            return value.strip()
    return None


def as_found(chip: ChipSpec) -> ChipSpec:
    """The chip with its forms as a probe found them here, or as in the table. Raises ProbeFileError.

    ASCEND_PROBE names another file than that of this installation, or is "off".
    """
    chosen = os.environ.get(VARIABLE)
    if chosen == NONE:
        return chip
    here = installation(chip.soc_version)
    path = Path(chosen) if chosen else here.file
    if path is None or (not chosen and not path.exists()):
        return chip
    return with_found(chip, here, path)


def with_found(chip: ChipSpec, here: Installation, path: Path) -> ChipSpec:
    """The chip with the forms of a file that must be of this chip, and of this machine's versions where known."""
    remedy = f"Run `ascend doctor --probe` again or set {VARIABLE}={NONE}"
    found = read(path)
    if found.of.emulated and not here.emulated:
        raise ProbeFileError(f"{remedy}: {path} was measured on an emulated chip, which says nothing of this one.")
    for name in ("soc", "cann", "driver"):
        this, that = getattr(here, name), getattr(found.of, name)
        if this is not None and this != that:
            raise ProbeFileError(f"{remedy}: {path} is of {name} {that}, and here it is {this}.")
    try:
        return with_forms(chip, found.forms, str(path))
    except ChipTableError as error:
        raise ProbeFileError(f"{remedy}: {error}") from error
