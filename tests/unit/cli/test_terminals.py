"""A terminal's habits: any width, pipes that close, outputs without room, encodings without box drawing, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Ascend

PLAN = ["plan", "qwen3-32b", "--chip", "310P3", "--chips", "4"]


def process(*arguments: str, stdout: int | None = subprocess.PIPE, **environment: str) -> subprocess.Popen[bytes]:
    values = os.environ | {"ASCEND_EMULATOR": "0"} | environment
    return subprocess.Popen(
        [sys.executable, "-m", "ascend_cli", *arguments], stdout=stdout, stderr=subprocess.PIPE, env=values
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("command", [PLAN, ["plan", "qwen3-0.6b", "--all-chips"], ["models", "--chip", "310P3"]])
def test_no_figure_is_cut_at_any_width(
    ascend: Ascend, monkeypatch: pytest.MonkeyPatch, width: int, command: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    whole = ascend(*command).out
    monkeypatch.setenv("COLUMNS", str(width))
    shown = ascend(*command).out
    assert "…" not in shown
    tables = shown.split("Chips of each")[0].split("* ")[0]
    if command[0] == "plan":
        figures = set(re.findall(r"\d[\d,.]*(?: ms| GiB)", whole.split("* ")[0]))
        lost = {figure for figure in figures if figure not in shown}
        assert not lost
        assert all(len(line) <= width for line in tables.splitlines() if "ascend serve" not in line)


def test_a_closed_pipe_is_a_good_end() -> None:
    for arguments in (PLAN, [*PLAN, "--json"], ["plan", "--list"], ["models", "--json"]):
        with process(*arguments) as running:
            assert running.stdout is not None and running.stderr is not None
            running.stdout.read(1)
            running.stdout.close()
            assert (running.wait(60), running.stderr.read()) == (0, b"")


def test_an_output_that_was_closed_before_the_start() -> None:
    command = f"{sys.executable} -m ascend_cli {' '.join(PLAN)} >&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [PLAN, [*PLAN, "--json"]])
def test_an_output_without_room_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full, process(*arguments, stdout=full.fileno()) as running:
        assert running.stderr is not None
        told = running.stderr.read().decode()
        assert running.wait(60) == 2
    assert len(told.splitlines()) == 1 and "cannot be written" in told


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_encoding_is_written(encoding: str) -> None:
    for arguments in (PLAN, ["models", "--chip", "310P3"]):
        running = process(*arguments, PYTHONIOENCODING=encoding)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert out.decode(encoding)


def test_a_script_is_utf_8_in_every_encoding() -> None:
    """A path with other letters, printed as question marks, would be another path."""
    folder = "/data/模型"
    arguments = ["deploy", "qwen3-8b", "--chip", "310P3", "--model-dir", folder]
    running = process(*arguments, PYTHONIOENCODING="ascii")
    out, _ = running.communicate(timeout=60)
    assert f"{folder}:{folder}:ro" in out.decode("utf-8")
    running = process(*arguments, "--json", PYTHONIOENCODING="ascii")
    out, _ = running.communicate(timeout=60)
    assert folder in json.loads(out.decode("ascii"))["text"]


def interrupt(running: subprocess.Popen[bytes]) -> bytes:
    """Press Ctrl-C, and again as a person would: Python sees none that falls between its look and the system's wait.

    What the process wrote to its standard error.
    """
    for _ in range(20):
        running.send_signal(signal.SIGINT)
        try:
            return running.communicate(timeout=3)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("Ctrl-C does not end it")


def test_ctrl_c_is_130() -> None:
    """Pressed while a server keeps a request waiting."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        running = process("bench", "serve", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(60)
        connection, _ = silent.accept()
        connection.recv(1 << 16)  # asked: now it waits
        err = interrupt(running)
        connection.close()
    assert running.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        PLAN,
        ["plan", "--list"],
        ["plan", "qwen3-0.6b", "--all-chips"],
        ["deploy", "qwen3-8b", "--chip", "310P3"],
        ["deploy", "--target", "dockerfile", "--chip", "310P3"],
        ["models"],
        ["bench", "compare", "atlas-300i-duo", "atlas-300i-duo"],
    ],
)
def test_every_json_names_its_schema(ascend: Ascend, command: list[str]) -> None:
    document = ascend(*command, "--json").json
    assert document["schema"].startswith("ascend.") and "/" in document["schema"]
