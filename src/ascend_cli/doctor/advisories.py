"""Open security advisories of a vLLM version, from a data file that ships with this package: no network needed."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ascend_cli.errors import UsageError

VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:\.?(rc|a|b|dev)(\d+))?")
FINAL = 1 << 30  # a release candidate comes before its release
SEVERITIES = ("critical", "high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Advisory:
    id: str
    severity: str
    introduced: str
    fixed: str  # empty if no release has the fix
    about: str
    mitigation: str


@cache
def advisories() -> tuple[Advisory, ...]:
    document = tomllib.loads(Path(__file__).with_name("advisories.toml").read_text(encoding="utf-8"))
    return tuple(Advisory(**entry) for entry in document["advisories"])


def parse_version(text: str) -> tuple[int, int, int, int]:
    """A version as numbers that compare; a release candidate before its release. Raises UsageError."""
    matched = VERSION.match(text.strip())
    if matched is None:
        if text.strip().isdigit():
            return (int(text), 0, 0, FINAL)
        raise UsageError(f"{text!r} is not a version: write it as 0.32.0")
    major, minor, patch, stage, number = matched.groups()
    return (int(major), int(minor), int(patch or 0), int(number) if stage else FINAL)


def open_advisories(vllm_version: str) -> list[Advisory]:
    """Advisories that affect a version, the gravest first."""
    version = parse_version(vllm_version)
    found = [
        advisory
        for advisory in advisories()
        if parse_version(advisory.introduced) <= version
        and (not advisory.fixed or version < parse_version(advisory.fixed))
    ]
    return sorted(found, key=lambda advisory: SEVERITIES.index(advisory.severity))
