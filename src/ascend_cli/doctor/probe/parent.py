"""Runs the groups of a probe in processes that may die or hang, and collects how each case went. Opens no device."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from ascend_cli.doctor.probe.case import EMULATED_PATIENCE, GROUPS, LIMIT_S, SLOW_GROUPS, Outcome, Status
from ascend_cli.errors import NothingDone

START_S = 120.0  # for the imports of a child
TRIES = 2  # faults and hangs of one rule (or of cases without one in a group): the rest of its cases are left alone
MOST_HANGS = 3  # a chip that hangs more often is sick


@dataclass
class Run:
    """What came of the groups."""

    outcomes: list[Outcome] = field(default_factory=list)
    installation: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str = ""  # why it ended early


class Child:
    """The process that forks for every order; see child.py."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ascend_cli.doctor.probe.child", str(writing)],
            stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, pass_fds=[writing],
        )  # fmt: skip
        os.close(writing)
        self._reading = reading
        self._buffer = b""

    def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, limit_s: float) -> dict[str, Any] | None:
        """The next line; None when there was none in time. Raises EOFError when the child has ended."""
        end = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                return None
            piece = os.read(self._reading, 1 << 16)
            if not piece:
                raise EOFError
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._reading)
        self.log.close()


def run(chip: int, groups: Sequence[str] = GROUPS, say: Callable[[Outcome], None] = lambda outcome: None) -> Run:
    """Try every case of the groups on one chip. Raises NothingDone where no child can start."""
    begin, done = time.monotonic(), Run()
    child = Child()
    try:
        try:
            ready = child.answer(START_S)
        except EOFError:
            ready = None
        if ready is None:
            raise NothingDone(f"the probe's process does not start: {child.last_words()}; run `ascend doctor`")
        for group in groups:
            _Group(child, group, chip, done, say).run()
            if done.stopped:
                break
    finally:
        child.close()
    done.seconds = time.monotonic() - begin
    return done


class _Group:
    """The cases of one group, in as many forks as it takes."""

    def __init__(self, child: Child, name: str, chip: int, run: Run, say: Callable[[Outcome], None]) -> None:
        self.child, self.name, self.chip, self.all, self.say = child, name, chip, run, say
        self.limit_s = SLOW_GROUPS.get(name, LIMIT_S)
        self.tried: list[str] = []
        self.known: dict[str, tuple[str, bool]] = {}  # cases by name: their rule, and whether they may be refused
        self.lost: dict[str, int] = {}  # forks that died, by rule

    def run(self) -> None:
        while not self.all.stopped and self._fork():
            pass

    def _fork(self) -> bool:
        """Try what is left in a fresh fork; whether something is left after it."""
        self.child.order(group=self.name, chip=self.chip, skip=self.tried)
        pid, current = 0, ""
        while True:
            line = self.child.answer(self.limit_s)
            if line is None:
                self._kill(pid)
                self._take(current, Status.HANG, f"no answer within {self.limit_s:.0f} s")
                current = ""
                if sum(outcome.status is Status.HANG for outcome in self.all.outcomes) >= MOST_HANGS:
                    self.all.stopped = (
                        f"{MOST_HANGS} cases hung: the chip may be sick. Look at `npu-smi info`, and reset it by hand "
                        f"(`npu-smi set -t reset -i CARD -c CHIP`) before anything else."
                    )
            elif "pid" in line:
                pid = line["pid"]
            elif "installation" in line:
                self.all.installation = line["installation"]
                if line["installation"].get("emulated"):
                    self.limit_s = SLOW_GROUPS.get(self.name, LIMIT_S) * EMULATED_PATIENCE
            elif "cases" in line:
                self.known.update({name: (rule, refused) for name, rule, refused in line["cases"]})
            elif "begins" in line:
                current = line["begins"]
            elif "outcome" in line:
                self._keep(Outcome(**{**line["outcome"], "status": Status(line["outcome"]["status"])}))
                current = ""
            elif "failed" in line:
                if not current:
                    raise NothingDone(f"the probe's cases of {self.name} cannot be tried: {line['failed']}")
                self._take(current, Status.FAULT, line["failed"])
                current = ""
            elif "code" in line:
                if current:
                    self._take(current, Status.FAULT, f"its process ended with {line['code']}")
                elif not self.known and line["code"] != 0:
                    raise NothingDone(f"the probe opens no chip: {self.child.last_words()}; run `ascend doctor`")
                return len(self.tried) < len(self.known)

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _take(self, case: str, status: Status, message: str) -> None:
        rule, refused = self.known.get(case, ("", False))
        self._keep(Outcome(case or f"opening the chip for {self.name}", self.name, status, message, rule, refused))

    def _keep(self, outcome: Outcome) -> None:
        self.tried.append(outcome.case)
        self.all.outcomes.append(outcome)
        self.say(outcome)
        if outcome.status not in (Status.FAULT, Status.HANG):
            return
        self.lost[outcome.rule] = self.lost.get(outcome.rule, 0) + 1
        if self.lost[outcome.rule] < TRIES:
            return
        for name, (rule, refused) in self.known.items():
            if rule == outcome.rule and name not in self.tried:
                self.tried.append(name)
                why = f"left alone: {TRIES} cases like it ended their process"
                self.all.outcomes.append(Outcome(name, self.name, Status.SKIPPED, why, rule, refused))
