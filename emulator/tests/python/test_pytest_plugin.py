"""The pytest plugin's process: results, errors and death travel back; hardware runs are what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ascend_emulator.worker import Worker, WorkerDied

pytest_plugins = ["pytester"]


def add(left: int, right: int = 0) -> int:
    return left + right


def refuse(message: str) -> None:
    raise KeyError(message)


def process_id() -> int:
    return os.getpid()


def die() -> None:
    os._exit(3)


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def refuse_unpicklably() -> None:
    raise Unpicklable("one", "two")


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(os.environ)
    yield worker
    worker.close()


def test_results_come_back_from_another_process(worker: Worker) -> None:
    assert worker.call(add, 2, right=3) == 5
    assert worker.call(process_id) not in (os.getpid(), None)
    assert worker.call(process_id) == worker.call(process_id)


def test_errors_come_back_as_themselves_with_where_they_arose(worker: Worker) -> None:
    with pytest.raises(KeyError, match="no such thing") as caught:
        worker.call(refuse, "no such thing")
    assert "in refuse" in caught.value.__notes__[0]
    assert worker.call(add, 1) == 1


def test_an_error_that_cannot_travel_becomes_its_text(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: onetwo"):
        worker.call(refuse_unpicklably)


def test_a_process_that_dies_is_reported(worker: Worker) -> None:
    with pytest.raises(WorkerDied, match="code 3 in die"):
        worker.call(die)


CHIP_TEST = """
    import os
    import pytest

    def chip():
        return os.environ.get("ASCEND_EMULATOR"), os.environ.get("ASCEND_EMULATOR_CHIP")

    @pytest.mark.chips("310P3", "910B3")
    def test_named(npu):
        assert npu.call(chip) in [("1", "310P3"), ("1", "910B3")]

    def test_default(npu):
        assert npu.call(chip) == ("1", "910B4")

    def test_machine(emulated):
        machine = emulated(count=2)
        assert machine.environment["ASCEND_EMULATOR_COUNT"] == "2"
"""


def test_tests_run_on_the_chips_they_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CHIP_TEST)
    result = pytester.runpytest_subprocess("--chip", "910B4")
    result.assert_outcomes(passed=4)


def test_on_hardware_nothing_is_emulated(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(
        "ASCEND_EMULATOR", raising=False
    )  # 1 lets an emulated chip stand in, and torch_npu's import sets it
    pytester.makepyfile("""
        import os

        def setting():
            return os.environ["ASCEND_EMULATOR"]

        def test_real(npu):
            assert npu.call(setting) == "0"
            npu.stats()

        def test_needs_emulation(emulated):
            pass
    """)
    result = pytester.runpytest_subprocess("--hardware", "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*only emulated chips count what they do*"])
