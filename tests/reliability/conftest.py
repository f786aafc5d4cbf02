"""Models and servers of the battery: few, shared, and small."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.tiny import build_tiny_qwen3

from . import report
from .scale import EVERYTHING
from .server import Running, started

KEY = "a-key-of-the-battery"
CONTEXT = 4096


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with a key for everything that a server must survive."""
    log = tmp_path_factory.mktemp("served") / "log"
    environment = {
        "VLLM_API_KEY": KEY,
        "ASCEND_SERVE_ROUTES": "/openapi.json",
        "ASCEND_REQUEST_LIMITS": "body_s=3",
    }
    flags = ["--max-model-len", str(CONTEXT), "--num-gpu-blocks-override", "256", "--max-num-seqs", "32"]
    with started(tiny, *flags, log=log, environment=environment) as server:
        server.headers["Authorization"] = f"Bearer {KEY}"
        yield server


OUTCOMES = report.Outcomes()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what the pages show."""
    if "tests/reliability" not in report.nodeid:
        return
    if report.failed:
        OUTCOMES.failed.append(f"{','.join(_items(report.nodeid))} {report.nodeid.rsplit('::', 1)[1]}")
    elif report.skipped:
        OUTCOMES.skipped += 1
    elif report.when == "call":
        OUTCOMES.passed += 1


def _items(nodeid: str) -> list[str]:
    """R1 to R16 as the module's first line names them."""
    file = Path(__file__).resolve().parents[2] / nodeid.split("::")[0]
    return re.findall(r"R\d+", file.read_text(encoding="utf-8").splitlines()[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("RELIABILITY_REPORT") == "1":
        scope = {"en": "everything", "zh": "全部"} if EVERYTHING else {"en": "the selection", "zh": "选取部分"}
        for page in report.write(OUTCOMES, scope):
            print(f"\nwrote {page}")
