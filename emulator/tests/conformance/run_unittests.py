"""Run unittest files in this process, a line of JSON per test: run_unittests.py ANSWERS FOLDER FILE..."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import traceback
import unittest
from pathlib import Path
from typing import TextIO

SECONDS_PER_TEST = 120


class Recorder(unittest.TestResult):
    """Writes each outcome as soon as it is known: a crash later loses nothing."""

    def __init__(self, file: str, answers: TextIO) -> None:
        super().__init__()
        self.file = file
        self.answers = answers

    def write(self, test: unittest.TestCase, status: str, reason: str = "") -> None:
        name = f"{self.file}::{type(test).__name__}::{getattr(test, '_testMethodName', 'setup')}"
        outcome = {"test": name, "status": status, "reason": reason[:300]}
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

    addError = addFailure

    def addSubTest(self, test, subtest, error) -> None:
        if error is not None:
            self.addFailure(test, error)


def too_long(*_) -> None:
    raise TimeoutError(f"took more than {SECONDS_PER_TEST} s")


def main() -> None:
    answers_path, folder, *files = sys.argv[1:]
    signal.signal(signal.SIGALRM, too_long)
    with open(answers_path, "a") as answers:
        for file in files:
            path = Path(folder) / file
            sys.path.insert(0, str(path.parent))
            recorder = Recorder(file, answers)
            try:
                spec = importlib.util.spec_from_file_location(path.stem.replace(" ", "_"), path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                unittest.defaultTestLoader.loadTestsFromModule(module).run(recorder)
            except Exception as error:  # the file itself cannot be used
                outcome = {"test": file, "status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
                print(json.dumps({"outcome": outcome}), file=answers, flush=True)
            sys.path.remove(str(path.parent))
            print(json.dumps({"finished": file}), file=answers, flush=True)


if __name__ == "__main__":
    main()
