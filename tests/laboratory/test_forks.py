"""Jobs in forks of a server process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.forks import TIMED_OUT, ForkServer

JOBS = """
import os, sys, time
IMPORTED_BY = os.getpid()

def main():
    print("from", IMPORTED_BY, "in", os.getpid(), *sys.argv[1:])
    if sys.argv[1] == "exit":
        sys.exit(3)
    if sys.argv[1] == "raise":
        raise KeyError("lost")
    if sys.argv[1] == "die":
        os.abort()
    if sys.argv[1] == "hang":
        time.sleep(600)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkServer]:
    (tmp_path / "jobs_of_test.py").write_text(JOBS)
    path = os.pathsep.join([str(tmp_path), *sys.path])

    def popen(command: list[str], **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **options)

    made = ForkServer(popen, ["jobs_of_test"])
    yield made
    made.close()


def test_jobs_share_one_import_and_run_in_processes_of_their_own(server: ForkServer, tmp_path: Path) -> None:
    lines = []
    for number in range(2):
        log = tmp_path / f"{number}.log"
        assert server.run("jobs_of_test", ["plain", str(number)], log, 60) == 0
        lines.append(log.read_text().split())
    (_, first_importer, _, first, _, _), (_, second_importer, _, second, word, argument) = lines
    assert first_importer == second_importer
    assert len({first_importer, first, second}) == 3
    assert (word, argument) == ("plain", "1")


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1), ("die", -6)])
def test_how_a_job_ends_is_told_and_the_server_lives_on(
    how: str, code: int, server: ForkServer, tmp_path: Path
) -> None:
    assert server.run("jobs_of_test", [how], tmp_path / "log", 60) == code
    if how == "raise":
        assert "KeyError: 'lost'" in (tmp_path / "log").read_text()
    assert server.run("jobs_of_test", ["plain"], tmp_path / "log", 60) == 0


def test_a_job_past_its_time_is_killed(server: ForkServer, tmp_path: Path) -> None:
    assert server.run("jobs_of_test", ["plain"], tmp_path / "log", 60) == 0
    assert server.run("jobs_of_test", ["hang"], tmp_path / "log", 1) == TIMED_OUT
    assert server.run("jobs_of_test", ["plain"], tmp_path / "log", 60) == 0


def test_modules_that_cannot_be_imported_fail_the_job(tmp_path: Path) -> None:
    server = ForkServer(subprocess.Popen, ["no_such_module_anywhere"])
    assert server.run("json", [], tmp_path / "log", 60) == 1
    server.close()
