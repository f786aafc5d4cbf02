"""A function's result from a fork of this process, which keeps what the function imports and opens to itself."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def in_fork(function: Callable[[], T]) -> T:
    """The function's picklable result. Raises RuntimeError, with the fork's traceback, where it raises or dies.

    Not for a process with an open device: a fork cannot use it.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _answer_and_exit(function, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answers:
        answer = answers.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0 or not answer:
        raise RuntimeError(f"A fork of this process ended with code {code}:\n{answer.decode(errors='replace')}")
    result: T = pickle.loads(answer)
    return result


def _answer_and_exit(function: Callable[[], Any], write_end: int) -> NoReturn:
    code = 1
    try:
        with os.fdopen(write_end, "wb") as answers:
            try:
                answer, code = pickle.dumps(function()), 0
            except BaseException:
                answer = traceback.format_exc().encode()
            answers.write(answer)
    finally:
        os._exit(code)  # what this process does at its end belongs to the parent
