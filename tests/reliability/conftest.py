"""Models and servers of the battery: few, shared, and small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import report as pages
from . import results
from .server import Running, started

KEY = "a-key-of-the-battery"
CONTEXT = 4096


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for everybody: nothing may change it."""
    if given := os.environ.get("RELIABILITY_TINY"):  # built before by `breaks`, which runs test after test
        return Path(given)
    from conformance.tiny import build_tiny_qwen3  # imports torch, which tests of other things need not wait for

    return build_tiny_qwen3(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with a key for everything that a server must survive."""
    log = tmp_path_factory.mktemp("served") / "log"
    environment = {
        "ASCEND_SERVE_ROUTES": "/openapi.json",
        "ASCEND_REQUEST_LIMITS": "body_s=15",  # short for the tests of slow clients, long for a busy machine
    }
    # Given as a flag, which the command must not hand on: see test_the_key_is_in_no_command_line_or_log.
    flags = [
        "--api-key",
        KEY,
        "--max-model-len",
        str(CONTEXT),
        "--num-gpu-blocks-override",
        "256",
        "--max-num-seqs",
        "32",
    ]
    with started(tiny, *flags, log=log, environment=environment) as server:
        server.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what became of each test."""
    if report.nodeid.startswith("tests/reliability") and (report.when == "call" or report.outcome != "passed"):
        results.ended(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("RELIABILITY_REPORT") == "1":
        for page in pages.write(results.merge()):
            print(f"\nwrote {page}")
