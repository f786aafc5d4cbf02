"""pytest plugin: tests that run on emulated chips, and unchanged on a real card with --hardware.

@pytest.mark.chips("310P3", "910B3")          # one run a chip; without the mark, --chip's (310P3)
def test_add(npu):
    assert npu.call(add_one, [1.0, 2.0]) == [2.0, 3.0]   # in a process of its own, shared by the module's tests

def test_server(emulated):
    machine = emulated(chip="910B3", count=8)
    machine.run([sys.executable, "script.py"], check=True)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from ascend_emulator.settings import DEFAULT_CHIP, Settings

if TYPE_CHECKING:
    from ascend_emulator.launcher import Machine
    from ascend_emulator.worker import Worker

HARDWARE = "hardware"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ascend", "Ascend chips")
    group.addoption("--hardware", action="store_true", help="run on the real card of this machine, not emulated")
    group.addoption("--chip", default=DEFAULT_CHIP, help="chip to emulate where a test names none (%(default)s)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chips(*names): the chips to run the test on, emulated one after another")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "npu" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("chips")
    names = marker.args if marker else (metafunc.config.getoption("--chip"),)
    if metafunc.config.getoption("--hardware"):
        names = (HARDWARE,)
    metafunc.parametrize("npu", names, indirect=True, scope="module")


class Npu:
    """A process on the chip under test."""

    def __init__(self, worker: Worker, is_emulated: bool) -> None:
        self.worker = worker
        self.is_emulated = is_emulated

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run a top-level function of an importable module there; its exceptions are raised here."""
        return self.worker.call(function, *arguments, **options)

    def stats(self) -> dict[str, Any]:
        """What the chip did since reset_stats(); skips the test on hardware, which does not count."""
        self._needs_counters()
        counters: dict[str, Any] = self.worker.call(_stats)
        return counters

    def reset_stats(self) -> None:
        self._needs_counters()
        self.worker.call(_reset_stats)

    def _needs_counters(self) -> None:
        if not self.is_emulated:
            pytest.skip("only emulated chips count what they do")


def _stats() -> dict[str, Any]:
    from ascend_emulator import counters

    return counters.stats()


def _reset_stats() -> None:
    from ascend_emulator import counters

    counters.reset_stats()


def _chip_name() -> str:
    import torch_npu

    return str(torch_npu.npu.get_device_name(0))


@pytest.fixture(scope="module")
def npu(request: pytest.FixtureRequest) -> Iterator[Npu]:
    """The chip under test, in a process shared by the tests of a module."""
    from ascend_emulator.launcher import emulate
    from ascend_emulator.worker import Worker

    with ExitStack() as stack:
        if request.param == HARDWARE:
            environment = {"ASCEND_EMULATOR": "0", **os.environ}  # set it to 1 to let an emulated chip stand in
        else:
            environment = stack.enter_context(emulate(chip=request.param)).environment
        worker = Worker(environment)
        stack.callback(worker.close)
        yield Npu(worker, is_emulated=request.param != HARDWARE)


@pytest.fixture(autouse=True)
def _skip_other_chips(request: pytest.FixtureRequest) -> None:
    """On hardware, a test that names chips runs only on one of them."""
    marker = request.node.get_closest_marker("chips")
    if marker is None or "npu" not in request.fixturenames or not request.config.getoption("--hardware"):
        return
    from ascend_emulator.chips import find

    card = find(request.getfixturevalue("npu").call(_chip_name)).name
    if card not in {find(name).name for name in marker.args}:
        pytest.skip(f"for {', '.join(marker.args)}; this machine has {card}")


@pytest.fixture
def emulated(request: pytest.FixtureRequest) -> Iterator[Callable[..., Machine]]:
    """A function that makes emulated machines for subprocesses: emulated(chip="910B3", count=8) -> Machine."""
    from ascend_emulator.launcher import emulate

    if request.config.getoption("--hardware"):
        pytest.skip("needs an emulated machine")
    default = request.config.getoption("--chip")
    with ExitStack() as stack:
        yield lambda **choices: stack.enter_context(emulate(Settings(**{"chip": default, **choices})))
