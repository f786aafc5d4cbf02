"""A fresh Python process that runs functions on chips: emulated ones, or the real card's.

The parent is Worker; `python -m ascend_emulator.worker FD` is the child. Functions travel by name, so they must be at
the top level of an importable module; arguments and results are pickled.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any


class WorkerDied(RuntimeError):
    """The process ended without an answer, as when an asynchronous device failure ends it."""


class Worker:
    """One child process; call() runs a function there. Not for several threads at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._connection, child_end = Pipe()
        descriptor = child_end.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ascend_emulator.worker", str(descriptor)],
            env=dict(environment),
            pass_fds=[descriptor],
        )
        child_end.close()
        self._connection.send(sys.path)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The function's result, or its exception with the child's traceback as a note. Raises WorkerDied."""
        try:
            self._connection.send((function.__module__, function.__qualname__, arguments, options))
            result, error, trace = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = self._process.wait()
            raise WorkerDied(f"The process ended with code {code} in {function.__qualname__}.") from None
        if error is not None:
            error.add_note(f"In the process on the chip:\n{trace}")
            raise error
        return result

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(connection: Connection) -> None:
    """Answer calls until the parent closes its end."""
    sys.path[:] = connection.recv()
    with suppress(EOFError, ConnectionResetError):
        while True:
            module, name, arguments, options = connection.recv()
            connection.send(_answer(module, name, arguments, options))


def _answer(module: str, name: str, arguments: Any, options: Any) -> tuple[Any, BaseException | None, str]:
    try:
        function = attrgetter(name)(importlib.import_module(module))
        return function(*arguments, **options), None, ""
    except BaseException as error:
        trace = traceback.format_exc()
        return None, _picklable(error), trace


def _picklable(error: BaseException) -> BaseException:
    """The error itself where it survives the journey, else a RuntimeError with its text."""
    from multiprocessing.reduction import ForkingPickler

    error.__traceback__ = None
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
