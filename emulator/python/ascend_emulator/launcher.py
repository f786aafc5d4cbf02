"""Run a command, child processes included, on a chosen emulated machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ascend_emulator.settings import Settings, SettingsError

STATS_SCHEMA = 1
COMMAND_NOT_FOUND = 127  # what a shell answers
# What is no choice of a machine: a machine takes it from the process that makes it, unless its settings say otherwise.
KEPT = (
    "ASCEND_EMULATOR_LIB_DIR",
    "ASCEND_EMULATOR_STATE_DIR",
    "ASCEND_EMULATOR_ANNOUNCED",
    "ASCEND_EMULATOR_LENIENT",
    "ASCEND_EMULATOR_RULES",
    "ASCEND_EMULATOR_FORMS",
)


class Machine:
    """An emulated machine that processes can be started on; its folder collects what they did."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """The environment for a process of this machine: pass it as `env` to subprocess."""
        inherited = {name: value for name, value in os.environ.items() if not _belongs_to_another_machine(name)}
        return {
            **inherited,
            **self.settings.to_environment(),
            "ASCEND_EMULATOR_STATS": str(self.folder / "stats" / "%p.json"),  # %p: the process id
        }

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        (self.folder / "stats").mkdir(exist_ok=True)
        return subprocess.Popen(list(command), env={**self.environment, **options.pop("env", {})}, **options)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """subprocess.run() on this machine; `env` adds to the machine's environment."""
        (self.folder / "stats").mkdir(exist_ok=True)
        return subprocess.run(list(command), env={**self.environment, **options.pop("env", {})}, **options)

    def stats(self) -> dict[str, Any]:
        """Counters of every process that used a chip of this machine and has ended: one by one, and in total."""
        files = sorted((self.folder / "stats").glob("*.json"))
        processes = [{"pid": int(file.stem), **json.loads(file.read_text())} for file in files]
        total: dict[str, Any] = {}
        for process in processes:
            _accumulate(total, {name: value for name, value in process.items() if name != "pid"})
        return {
            "schema": STATS_SCHEMA,
            "emulated": True,
            "chip": self.settings.spec.name,
            "count": self.settings.chip_count,
            "clock": self.settings.clock,
            "total": total,
            "processes": processes,
        }


def _belongs_to_another_machine(name: str) -> bool:
    return name.startswith("ASCEND_EMULATOR_") and name not in KEPT


def _accumulate(total: dict[str, Any], counters: Mapping[str, Any]) -> None:
    """Add counters up, name by name; of a peak the highest counts, of anything that is not a number the first."""
    for name, value in counters.items():
        if isinstance(value, Mapping):
            _accumulate(total.setdefault(name, {}), value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            total.setdefault(name, value)
        elif name.startswith("peak"):
            total[name] = max(total.get(name, value), value)
        else:
            total[name] = total.get(name, 0) + value


@contextmanager
def emulate(settings: Settings | None = None, **choices: Any) -> Iterator[Machine]:
    """An emulated machine for subprocesses: `with emulate(chip="910B3", count=8) as machine: machine.run([...])`.

    Takes Settings or its fields. Raises SettingsError for a choice that cannot be.
    """
    with tempfile.TemporaryDirectory(prefix="ascend-emulator-") as folder:
        yield Machine(settings or Settings(**choices), Path(folder))


def run(command: Sequence[str], settings: Settings, stats_file: Path | None = None) -> int:
    """Run a command on an emulated machine in the foreground and return its exit code (128 + n for signal n).

    The command is looked for on the search path, then beside this Python (a virtual environment not activated).
    With stats_file, the counters of all its processes are written there as JSON once it has ended.
    Raises SettingsError if the command is empty or its stats file cannot be written.
    """
    if not command:
        raise SettingsError("No command: give one after --, for example `-- python -c 'import torch_npu'`.")
    if stats_file is not None and not os.access(stats_file.absolute().parent, os.W_OK):
        raise SettingsError(f"stats is {str(stats_file)!r}: its folder does not exist or cannot be written.")
    with emulate(settings) as machine:
        program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
        if program is None:
            print(f"error: {command[0]}: command not found.", file=sys.stderr)
            return COMMAND_NOT_FOUND
        code = _run_in_foreground(lambda: machine.popen([program, *command[1:]]))
        if stats_file is not None:
            stats_file.write_text(json.dumps(machine.stats(), indent=2) + "\n", encoding="utf-8")
    return code


def _run_in_foreground(start: Callable[[], subprocess.Popen[Any]]) -> int:
    process: subprocess.Popen[Any] | None = None
    early: list[int] = []  # signals that came while the command was being started

    def forward(number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to the whole foreground group, so the command has it already.
        if number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty():
            return
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, forward) for number in handled}
    try:
        process = start()
        for number in early:
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
