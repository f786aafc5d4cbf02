"""Results from forks of this process."""

from __future__ import annotations

import os
import signal

import pytest

from ascend_plugin.forked import in_fork


def test_a_result_comes_back_and_nothing_else() -> None:
    seen: list[int] = []

    def function() -> tuple[int, str]:
        seen.append(1)
        return os.getpid(), "x" * 1_000_000  # more than a pipe holds

    pid, text = in_fork(function)
    assert pid != os.getpid()
    assert len(text) == 1_000_000
    assert not seen


def test_an_error_comes_with_its_traceback() -> None:
    def function() -> None:
        raise KeyError("lost")

    with pytest.raises(RuntimeError, match=r"code 1(.|\n)*in function(.|\n)*KeyError: 'lost'"):
        in_fork(function)


def test_a_fork_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="code -9"):
        in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL))
