"""Where engines and references run: emulated machines, the chips of this computer, or its CPU alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from ascend_cli.errors import UsageError
from conformance.forks import ForkServer

CPU_ONLY = {"ASCEND_EMULATOR": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # for processes that must see no NPU

ENGINE = {"VLLM_NO_USAGE_STATS": "1"}
# What their jobs import: all that opens no device.
ENGINE_MODULES = ("conformance.engine", "vllm.entrypoints.llm", "vllm.v1.engine.core", "ascend_plugin.worker")
CPU_MODULES = (
    "conformance.reference",
    "conformance.faults",
    "conformance.registry.build",
    "transformers.models.qwen3.modeling_qwen3",
)


class Machine(Protocol):
    """`ascend_emulator.launcher.Machine`, or this computer."""

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]: ...

    def stats(self) -> dict[str, Any]: ...


class ThisComputer:
    """A machine with real chips, or used without any."""

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(list(command), **{**options, "env": {**os.environ, **options.get("env", {})}})

    def stats(self) -> dict[str, Any]:
        return {}


class Place:
    """A machine and the server of forks on it."""

    def __init__(self, machine: Machine, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **environment}
        self.machine = machine
        self.server = ForkServer(lambda command, **options: machine.popen(command, env=variables, **options), modules)

    def run(self, module: str, arguments: Sequence[str], log: Path, timeout_s: int) -> int:
        return self.server.run(module, arguments, log, timeout_s)

    def replays(self) -> int | None:
        """Graphs replayed by all processes that have ended; None where nothing counts them."""
        replays: int | None = self.machine.stats().get("total", {}).get("graphs", {}).get("replays")
        return replays


class Places:
    """One place for each kind of chip and one without chips, made when first asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._places: dict[str, Place] = {}

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cpu(self) -> Place:
        return self._place("cpu", None, CPU_MODULES, CPU_ONLY)

    def chips(self, chip: str | None) -> Place:
        """Two emulated chips of that kind; the chips of this computer if chip is None."""
        return self._place(f"chip {chip}", chip, ENGINE_MODULES, ENGINE)

    def _place(self, name: str, chip: str | None, modules: Sequence[str], environment: Mapping[str, str]) -> Place:
        if name not in self._places:
            machine = ThisComputer() if chip is None else self._emulated(chip)
            self._places[name] = Place(machine, modules, environment)
            self._stack.callback(self._places[name].server.close)
        return self._places[name]

    def _emulated(self, chip: str) -> Machine:
        try:
            from ascend_emulator.launcher import emulate
        except ImportError as error:
            raise UsageError("the emulator is not installed: `pip install ./emulator` in this repository") from error
        return self._stack.enter_context(emulate(chip=chip, count=2))
