"""The bill of materials names every pin of every lock once, with hashes, and finds what an advisory names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bill_of_materials import LOCKS, ROOT, Component, document, open_advisories, pinned


def test_every_pin_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "bill.json"
    command = [sys.executable, str(ROOT / "scripts" / "bill_of_materials.py"), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    bill = json.loads(out.read_text())
    names = {(one["name"], one["version"]) for one in bill["components"]}
    lines = [line for lock in LOCKS for line in lock.read_text().splitlines()]
    pins = {tuple(line.split(" ")[0].split("==")) for line in lines if re.match(r"\S+==", line)}
    assert {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in pins} == names
    assert {"vllm", "torch-npu", "transformers"} <= {name for name, _ in names}
    assert all(one["hashes"] and one["purl"].startswith("pkg:pypi/") for one in bill["components"])
    assert bill["bomFormat"] == "CycloneDX" and len(names) == len(bill["components"])


def test_the_same_locks_make_the_same_bill() -> None:
    assert document(pinned(LOCKS), "1") == document(pinned(LOCKS), "1")


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("vllm==0.33.0\n")
    with pytest.raises(ValueError, match="no hash"):
        pinned([tmp_path / "a.lock"])


@pytest.mark.parametrize(
    ("affected", "found"),
    [
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5"}]}]}, False),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.5"}, {"last_affected": "1.5"}]}]}, True),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1.6"}]}]}, False),
        ({"versions": ["1.5"]}, True),
        ({"versions": ["1.4"]}, False),
    ],
)
def test_open_advisories(affected: dict, found: bool) -> None:
    record = {"id": "X-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "A_b"}, **affected}]}
    assert bool(list(open_advisories([Component("a-b", "1.5")], [record]))) == found
    other = {"id": "X-2", "affected": [{"package": {"ecosystem": "npm", "name": "a-b"}, **affected}]}
    assert not list(open_advisories([Component("a-b", "1.5")], [other]))
