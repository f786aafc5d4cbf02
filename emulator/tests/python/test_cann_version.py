"""The CANN that is emulated has one version: of the files that programs read, and of its operators' signatures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ascend_emulator import activation, host

FILES = sorted((activation.PACKAGE / "cann").rglob("*.info"))
SIGNATURES = Path(__file__).parents[2] / "src" / "aclnn" / "signatures.txt"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name)
def test_every_file_names_it(file: Path) -> None:
    assert re.findall(r"(?m)^[Vv]ersion=(.*)$", file.read_text()) == [host.CANN_VERSION]


def test_the_signatures_are_of_it() -> None:
    """torch_npu takes roads by the version, whose functions must then be there and have the arguments it passes."""
    assert SIGNATURES.read_text().startswith(f"# The aclnn functions of CANN {host.CANN_VERSION} ")
