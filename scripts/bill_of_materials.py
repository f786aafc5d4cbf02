"""A bill of materials of everything that set-up installs, from the lock files: `make bill-of-materials`.

CycloneDX 1.6 as JSON (https://cyclonedx.org/docs/1.6/json), one component a pinned distribution with the hashes that
pip checks, the same for the same locks: no time and no random number is in it. `--check` compares each with the
advisories of a file in OSV's form (https://ossf.github.io/osv-schema), offline, and ends with 1 if one is open.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAMESPACE = uuid.UUID("9b3f3f0e-5d3b-5e8c-9a64-0f5a8c3d7a11")


@dataclass
class Component:
    """A distribution of the package index at one version."""

    name: str
    version: str
    locks: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def pinned(locks: list[Path]) -> list[Component]:
    """Every pin of the lock files, by name and version. Raises ValueError for a lock without pins or hashes."""
    found: dict[tuple[str, str], Component] = {}
    for lock in locks:
        current: Component | None = None
        for line in lock.read_text(encoding="utf-8").splitlines():
            if pin := PIN.match(line):
                key = re.sub(r"[-_.]+", "-", pin[1]).lower(), pin[2]
                current = found.setdefault(key, Component(*key))
                current.locks.append(lock.name)
            if current is not None:
                current.hashes += [digest for digest in HASH.findall(line) if digest not in current.hashes]
        if current is None:
            raise ValueError(f"{lock} pins nothing: write it with scripts/lock.py")
    without = [one.purl for one in found.values() if not one.hashes]
    if without:
        raise ValueError(f"{without[0]} has no hash: write the locks again with scripts/lock.py")
    return [found[key] for key in sorted(found)]


def document(components: list[Component], version: str) -> dict[str, Any]:
    """The bill as CycloneDX has it."""
    entries = [
        {
            "type": "library",
            "bom-ref": one.purl,
            "name": one.name,
            "version": one.version,
            "purl": one.purl,
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in one.hashes],
            "properties": [{"name": "lock", "value": lock} for lock in one.locks],
        }
        for one in components
    ]
    serial = uuid.uuid5(NAMESPACE, json.dumps(entries, sort_keys=True))
    product = {"type": "application", "bom-ref": "ascend-plugin", "name": "ascend-plugin", "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": product},
        "components": entries,
        "dependencies": [{"ref": "ascend-plugin", "dependsOn": [one.purl for one in components]}],
    }


def open_advisories(components: list[Component], records: list[dict[str, Any]]) -> Iterator[tuple[Component, str]]:
    """Pins that an advisory of OSV's form names, by version or by range."""
    by_name = {one.name: [other for other in components if other.name == one.name] for one in components}
    for entry in records:
        for affected in entry.get("affected", []):
            package = affected.get("package", {})
            if package.get("ecosystem") != "PyPI" or entry.get("withdrawn"):
                continue
            for component in by_name.get(re.sub(r"[-_.]+", "-", package.get("name", "")).lower(), []):
                if _is_affected(component.version, affected):
                    yield component, entry["id"]


def _is_affected(version: str, affected: dict[str, Any]) -> bool:
    from packaging.version import Version

    if version in affected.get("versions", []):
        return True
    at = Version(version)
    for one in affected.get("ranges", []):
        if one.get("type") != "ECOSYSTEM":
            continue
        inside = False
        for event in one["events"]:
            if "introduced" in event and at >= Version(event["introduced"] if event["introduced"] != "0" else "0.dev0"):
                inside = True
            if "fixed" in event and at >= Version(event["fixed"]):
                inside = False
            if "last_affected" in event and at > Version(event["last_affected"]):
                inside = False
        if inside:
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "ascend-plugin.cdx.json")
    parser.add_argument("--check", type=Path, metavar="FILE", help="advisories in OSV's form: a JSON list")
    options = parser.parse_args()
    components = pinned(LOCKS)
    version = (ROOT / "emulator" / "VERSION").read_text(encoding="utf-8").strip()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document(components, version), indent=1) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(components)} components from {len(LOCKS)} locks")
    if options.check is None:
        return 0
    found = list(open_advisories(components, json.loads(options.check.read_text(encoding="utf-8"))))
    for component, name in found:
        print(f"{component.name} {component.version}: {name}", file=sys.stderr)
    print(f"{len(found)} advisories are open")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
