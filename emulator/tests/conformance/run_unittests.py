"""Run unittest files in this process, a line of JSON per test: run_unittests.py ANSWERS FOLDER FILE...

Ends with code 3 after the first failure: a failed kernel leaves its device, and so every later test, unusable. Called
again with the same ANSWERS it goes on after the tests that are there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import traceback
import unittest
from pathlib import Path
from typing import TextIO

SECONDS_PER_TEST = 120
AFTER_A_FAILURE = 3


class Recorder(unittest.TestResult):
    """Writes each outcome as soon as it is known: a crash later loses nothing."""

    def __init__(self, file: str, answers: TextIO, known: set[str]) -> None:
        super().__init__()
        self.file = file
        self.answers = answers
        self.known = known

    def name(self, test: unittest.TestCase) -> str:
        return f"{self.file}::{type(test).__name__}::{getattr(test, '_testMethodName', 'setup')}"

    def write(self, test: unittest.TestCase, status: str, reason: str = "") -> None:
        outcome = {"test": self.name(test), "status": status, "reason": reason[:300]}
        print(json.dumps({"outcome": outcome}), file=self.answers, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:
        signal.alarm(SECONDS_PER_TEST)

    def stopTest(self, test: unittest.TestCase) -> None:
        signal.alarm(0)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.write(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.write(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, error) -> None:
        self.write(test, "failed", " ".join(traceback.format_exception_only(*error[:2])[-1].split()))
        self.answers.flush()
        os._exit(AFTER_A_FAILURE)  # a broken device could hold an orderly exit up

    addError = addFailure

    def addSubTest(self, test, subtest, error) -> None:
        if error is not None:
            self.addFailure(test, error)


def waiting(suite: unittest.TestSuite, recorder: Recorder) -> unittest.TestSuite:
    """The tests of the suite that have no outcome yet."""
    tests: list[unittest.TestCase] = []

    def collect(part) -> None:
        for each in part:
            if isinstance(each, unittest.TestSuite):
                collect(each)
            elif recorder.name(each) not in recorder.known:
                tests.append(each)

    collect(suite)
    return unittest.TestSuite(tests)


def too_long(*_) -> None:
    raise TimeoutError(f"took more than {SECONDS_PER_TEST} s")


def main() -> None:
    answers_path, folder, *files = sys.argv[1:]
    signal.signal(signal.SIGALRM, too_long)
    lines = [json.loads(line) for line in Path(answers_path).read_text().splitlines()]
    known = {line["outcome"]["test"] for line in lines if "outcome" in line}
    with open(answers_path, "a") as answers:
        for file in files:
            path = Path(folder) / file
            sys.path.insert(0, str(path.parent))
            recorder = Recorder(file, answers, known)
            try:
                spec = importlib.util.spec_from_file_location(path.stem.replace(" ", "_"), path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                waiting(unittest.defaultTestLoader.loadTestsFromModule(module), recorder).run(recorder)
            except Exception as error:  # the file itself cannot be used
                outcome = {"test": file, "status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
                print(json.dumps({"outcome": outcome}), file=answers, flush=True)
            sys.path.remove(str(path.parent))
            print(json.dumps({"finished": file}), file=answers, flush=True)


if __name__ == "__main__":
    main()
