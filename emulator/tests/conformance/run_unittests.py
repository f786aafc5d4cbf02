"""Run unittest files, a line of JSON per event: run_unittests.py ANSWERS FOLDER JOBS FILE...

Files and tests that ANSWERS has an outcome of are left out. torch_npu is imported once; each file runs in a fork of
that process. A failed kernel leaves its device, and so every later test of its process, unusable: a fork ends with its
first failure, and the rest of its file goes on in a new one. Random numbers are seeded by the test's name, so that a
test meets the same numbers whatever ran before it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import unittest
import zlib
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import TextIO

import numpy
import torch
import torch_npu.testing.testcase  # every file imports it; it opens no device

CPU_SECONDS_PER_TEST = 60
SECONDS_PER_TEST = 3600  # of the wall clock: a hang; on a busy machine a test waits long for its share of the CPU
SECONDS_PER_IMPORT = 120
AFTER_A_FAILURE = 3
MAX_REASON = 1000  # torch_npu's messages name the broken rule last
LIMITS = {
    signal.SIGPROF: f"took more than {CPU_SECONDS_PER_TEST} s of the CPU",
    signal.SIGALRM: f"took more than {SECONDS_PER_TEST} s",
}


def limit(cpu_seconds: int, seconds: int) -> None:
    """The signals keep their default action: a handler would not run while C++ code does not return."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.alarm(seconds)


def poll_less() -> None:
    """Let this process's sleeps end late: a thread of torch_npu polls every microsecond, a third of the CPU time."""
    set_timer_slack = 29  # PR_SET_TIMERSLACK, in nanoseconds; threads inherit it
    ctypes.CDLL(None).prctl(set_timer_slack, ctypes.c_ulong(20_000_000), 0, 0, 0)


class Recorder(unittest.TestResult):
    """Writes each outcome as soon as it is known: a crash later loses nothing."""

    def __init__(self, file: str, answers: TextIO) -> None:
        super().__init__()
        self.file = file
        self.answers = answers
        self.began = 0.0

    def name(self, test: unittest.TestCase) -> str:
        return f"{self.file}::{type(test).__name__}::{getattr(test, '_testMethodName', 'setup')}"

    def write(self, test: unittest.TestCase, status: str, reason: str = "") -> None:
        outcome = {"test": self.name(test), "status": status, "reason": reason[:MAX_REASON]}
        outcome["cpu_s"] = round(time.process_time() - self.began, 2)
        print(json.dumps({"file": self.file, "outcome": outcome}), file=self.answers, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:
        print(json.dumps({"file": self.file, "started": self.name(test)}), file=self.answers, flush=True)
        seed = zlib.crc32(self.name(test).encode())
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        limit(CPU_SECONDS_PER_TEST, SECONDS_PER_TEST)
        self.began = time.process_time()

    def stopTest(self, test: unittest.TestCase) -> None:
        limit(0, 0)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.write(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.write(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, error) -> None:
        self.write(test, "failed", " ".join(traceback.format_exception_only(*error[:2])[-1].split()))
        os._exit(AFTER_A_FAILURE)  # a broken device could hold an orderly exit up

    addError = addFailure

    def addSubTest(self, test, subtest, error) -> None:
        if error is not None:
            self.addFailure(test, error)


def waiting(suite: unittest.TestSuite, recorder: Recorder, known: set[str]) -> unittest.TestSuite:
    """The tests of the suite that have no outcome yet."""
    tests: list[unittest.TestCase] = []

    def collect(part) -> None:
        for each in part:
            if isinstance(each, unittest.TestSuite):
                collect(each)
            elif recorder.name(each) not in known:
                tests.append(each)

    collect(suite)
    return unittest.TestSuite(tests)


def import_as_program(path: Path) -> ModuleType:
    """The file's module, with what it sets when it is run as a program (compatible kernels), but for its own run."""
    torch_npu.testing.testcase.run_tests = unittest.main = lambda *_, **__: None
    spec = importlib.util.spec_from_file_location("__main__", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_file(file: str, folder: Path, answers_path: str, known: set[str]) -> None:
    """The tests of a file that have no outcome yet; ends the process at the first failure."""
    path = folder / file
    poll_less()
    sys.path.insert(0, str(path.parent))
    os.chdir(path.parent)
    with open(answers_path, "a") as answers:
        recorder = Recorder(file, answers)
        limit(SECONDS_PER_IMPORT, SECONDS_PER_TEST)
        try:
            suite = unittest.defaultTestLoader.loadTestsFromModule(import_as_program(path))
        except Exception as error:  # the file itself cannot be used
            outcome = {"test": file, "status": "failed", "reason": f"{type(error).__name__}: {error}"[:MAX_REASON]}
            print(json.dumps({"file": file, "outcome": outcome}), file=answers, flush=True)
        else:
            waiting(suite, recorder, known).run(recorder)
        print(json.dumps({"file": file, "finished": True}), file=answers, flush=True)


class Pool:
    """Files of tests in forked processes, a few at a time."""

    def __init__(self, folder: Path, answers_path: str, jobs: int, files: list[str]) -> None:
        self.folder = folder
        self.answers_path = answers_path
        self.jobs = jobs
        self.running: dict[int, tuple[str, TextIO]] = {}
        self.known: defaultdict[str, set[str]] = defaultdict(set)  # file -> its tests that have an outcome
        self.current: dict[str, str] = {}  # file -> the test that began last
        self.finished: set[str] = set()
        self.lines = open(answers_path)  # noqa: SIM115  (read until the process ends)
        self.read()
        self.waiting = [file for file in files if file not in self.finished]

    def start(self, file: str) -> None:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed when its process has ended)
        process = os.fork()
        if process == 0:
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                run_file(file, self.folder, self.answers_path, self.known[file])
            finally:
                sys.stdout.flush()
                os._exit(0)
        self.running[process] = (file, output)

    def read(self) -> None:
        for text in self.lines:
            line = json.loads(text)
            if "started" in line:
                self.current[line["file"]] = line["started"]
            elif "outcome" in line:
                self.known[line["file"]].add(line["outcome"]["test"])
            else:
                self.finished.add(line["file"])

    def fail_current(self, file: str, code: int, output: TextIO) -> None:
        """A process died without a word: the test that it ran, or the file, has failed."""
        reason = LIMITS.get(-code)
        if reason is None:
            output.seek(0)
            last_words = (output.read().strip().splitlines() or ["no message"])[-1]
            reason = f"the process ended with {code}: {last_words}"[:MAX_REASON]
        test = self.current.get(file, file)
        if test in self.known[file]:  # between two tests, or while it ends
            test = file
            self.finished.add(file)
        with open(self.answers_path, "a") as answers:
            outcome = {"test": test, "status": "failed", "reason": reason}
            print(json.dumps({"file": file, "outcome": outcome}), file=answers)

    def run(self) -> None:
        total = len(self.waiting)
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.jobs:
                self.start(self.waiting.pop(0))
            process, status = os.wait()
            file, output = self.running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            self.read()
            if file not in self.finished and code != AFTER_A_FAILURE:
                self.fail_current(file, code, output)
                self.read()
            output.close()
            if file not in self.finished:
                self.waiting.insert(0, file)
            else:
                done = total - len(self.waiting) - len(self.running)
                print(f"{done} of {total} files: {file}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    answers_path, folder, jobs, *files = sys.argv[1:]
    Pool(Path(folder).resolve(), answers_path, int(jobs), files).run()
