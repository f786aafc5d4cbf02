"""What `ascend doctor --probe` found on an installation: forms of operators that take the place of the chip table's.

A result belongs to one chip with one CANN and one driver, which are in its file's name and in the file:

    {"soc": "Ascend310P3", "cann": "9.1.0", "driver": "26.0.RC1", "forms": {"gating_rows": 4096}}

`forms` holds fields of chips.Forms; other keys are the probe's own. Imports neither torch nor anything that touches a
device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascend_facts.chips import ChipSpec, ChipTableError, with_forms

VARIABLE = "ASCEND_PROBE"
NONE = "off"
DRIVER_FILE = Path("/usr/local/Ascend/driver/version.info")
CANN_HOMES = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann", "/usr/local/Ascend/cann/latest")
CANN_FILES = (
    "aarch64-linux/ascend_toolkit_install.info",
    "x86_64-linux/ascend_toolkit_install.info",
    "ascend_toolkit_install.info",
    "compiler/version.info",
    "version.info",
)


class ProbeFileError(ValueError):
    """A probe's result that cannot be used; the message says which file, and what to do."""


@dataclass(frozen=True)
class Installation:
    """What a probe's result holds for; None for a version that is not recorded on this machine."""

    soc: str
    cann: str | None
    driver: str | None

    @property
    def file(self) -> Path | None:
        """Where its result is kept; None where a version is not known, so that no result can be known to be its own."""
        if self.cann is None or self.driver is None:
            return None
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "ascend" / f"probe-{self.soc}-{self.cann}-{self.driver}.json"


def installation(soc: str) -> Installation:
    """The versions of this machine."""
    homes = [home for home in (os.environ.get("ASCEND_HOME_PATH"), *CANN_HOMES) if home]
    cann = (Path(home) / file for home in homes for file in CANN_FILES)
    return Installation(soc, _version(cann), _version([DRIVER_FILE]))


def _version(files: Iterable[Path]) -> str | None:
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
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
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        of = Installation(result["soc"], result["cann"], result["driver"])
        forms = dict(result["forms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeFileError(f"{remedy}: {path} is not a probe's result ({error!r}).") from error
    for name in ("soc", "cann", "driver"):
        this, that = getattr(here, name), getattr(of, name)
        if this is not None and this != that:
            raise ProbeFileError(f"{remedy}: {path} is of {name} {that}, and here it is {this}.")
    try:
        return with_forms(chip, forms, str(path))
    except ChipTableError as error:
        raise ProbeFileError(f"{remedy}: {error}") from error
