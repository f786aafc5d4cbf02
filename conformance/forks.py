"""Jobs in forks of a process that has imported what they need: most of a small job would be importing.

`python -m conformance.forks MODULE...` imports the modules and takes orders, a line of JSON each, from its
standard input: {"module": .., "arguments": [..], "log": ..}. It forks, and the child runs that module's main() with
these arguments, its output into the log. Answers are lines too: {"pid": ..} at once, {"code": ..} when the child has
ended. Nothing that is imported may open a device: forks of a process that has one open cannot use theirs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

TIMED_OUT = 124  # what `timeout` answers


class ForkServer:
    """The client's side: a server process, started at the first job."""

    def __init__(self, popen: Callable[..., subprocess.Popen[str]], modules: Sequence[str]) -> None:
        self._popen, self._modules = popen, modules
        self._process: subprocess.Popen[str] | None = None

    def run(self, module: str, arguments: Sequence[str], log: Path, timeout_s: int) -> int:
        """Exit code of the module's main() in a fork, negative for a signal; 124 past the time, when it is killed."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", __name__, *self._modules]
            self._process = self._popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        orders, answers = pipes(self._process)
        order = {"module": module, "arguments": list(arguments), "log": str(log)}
        orders.write(json.dumps(order) + "\n")
        orders.flush()
        started = read_answer(answers)
        if started is None:
            return 1  # the server itself died, importing
        if not select.select([answers], [], [], timeout_s)[0]:
            os.killpg(started["pid"], signal.SIGKILL)
            read_answer(answers)
            return TIMED_OUT
        ended = read_answer(answers)
        return 1 if ended is None else int(ended["code"])

    def close(self) -> None:
        if self._process is not None:
            pipes(self._process)[0].close()
            self._process.wait()
            self._process = None


def pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Where the server reads orders and where it answers."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("A fork server is spoken to through pipes: start it with stdin=PIPE and stdout=PIPE.")
    return process.stdin, process.stdout


def read_answer(answers: IO[str]) -> dict[str, Any] | None:
    """The server's next line; None when it has ended."""
    line = answers.readline()
    return json.loads(line) if line else None


def serve(orders: TextIO, answers: TextIO) -> dict[str, Any] | None:
    """Fork for every order; returns the order in the child, None in the server once there are no more."""
    for line in iter(orders.readline, ""):
        pid = os.fork()
        if pid == 0:
            order: dict[str, Any] = json.loads(line)
            return order
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        print(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}), file=answers, flush=True)
    return None


def become(order: dict[str, Any]) -> None:
    """Run the order in this process, as if it had been started for it."""
    os.setsid()  # so that it can be killed with what it starts
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, targets in ((nothing, [0]), (log, [1, 2])):
        for target in targets:
            os.dup2(source, target)
        os.close(source)
    sys.argv = [order["module"], *order["arguments"]]
    importlib.import_module(order["module"]).main()


def main() -> None:
    # What modules print must not come between answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # the children share these pages until something writes to them
    order = serve(sys.stdin, answers)
    answers.close()
    if order is not None:
        become(order)


if __name__ == "__main__":
    main()
