"""Sees each test of the battery fail: `python -m tests.reliability.breaks [-k WORDS]`.

For every `@pytest.mark.breaks(TEXT)` the tracked files are copied, the edits that `switches` has for TEXT are made in
the copy, and that test alone is run there. It must fail, by an assertion or a limit of its own: a test that passes
shows nothing, one that is skipped or cannot be set up shows as little. Exit code 1 if any did not fail in this way.

With everything it takes an hour on two cores. Run nothing beside it that answers by the clock.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import psutil

from ascend_plugin.service import shared_memory

from .switches import PARAMETERS, SWITCHES, Edit, Switch

ROOT = Path(__file__).resolve().parents[2]
BATTERY = Path("tests/reliability")
# Not in /tmp: a test lays a machine out whose /tmp is another one.
COPIES = ROOT / "build" / "breaks"
MARK = "ASCEND_BREAKS_RUN"  # in the environment of everything that a run starts, and by it what is left is found
ENVIRONMENT = {"RELIABILITY": "everything", "OMP_NUM_THREADS": "1"}
LIMIT_S = 300  # of one test, its setting up too; --limit is for a machine that is slow or shared
TEARDOWN_S = 120
FAILED, HUNG, PASSED = "failed as it should", "hung", "passed (!)"
AS_IT_SHOULD = (FAILED, HUNG)
# By which a test says that something is wrong, or the product that it refuses what it was given. Any other exception is
# a defect of the test or of its switch.
OF_A_TEST = re.compile(
    r"(AssertionError|assert |Failed: |([\w.]+\.)?(TimeoutExpired|TimeoutError|\w+Timeout|UsageError)\b)"
)


@dataclass(frozen=True)
class Marked:
    """One mark of one test."""

    file: str
    name: str
    text: str

    @property
    def test(self) -> str:
        """As pytest takes it, with the one parameter that is enough."""
        parameter = PARAMETERS.get(self.name)
        return f"{BATTERY / self.file}::{self.name}" + (f"[{parameter}]" if parameter is not None else "")


def tests_in(folder: Path) -> dict[tuple[str, str], list[str]]:
    """(file, name) of every test of the battery, with the texts of its marks; read, not imported."""
    found = {}
    for file in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[file.name, node.name] = list(filter(None, map(_text, node.decorator_list)))
    return found


def _text(decorator: ast.expr) -> str:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.breaks":
        return str(ast.literal_eval(decorator.args[0]))
    return ""


def marked(folder: Path) -> list[Marked]:
    return [Marked(file, name, text) for (file, name), texts in tests_in(folder).items() for text in texts]


def problem(edit: Edit, tree: Path) -> str:
    """Why an edit cannot be made in a tree; nothing if it can."""
    file = tree / edit.file
    if not file.is_file():
        return f"{edit.file} is not there"
    count = file.read_text(encoding="utf-8").count(edit.old)
    return "" if count == 1 else f"{edit.file} has this {count} times: {edit.old!r}"


# ------------------------------------------------------------------ one test


def copy(tree: Path) -> None:
    """The tracked files, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, tree / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def apply(switch: Switch, tree: Path) -> None:
    """Raises ValueError for an edit that cannot be made."""
    for edit in switch.edits:
        if why := problem(edit, tree):
            raise ValueError(why)
        file = tree / edit.file
        file.write_text(file.read_text(encoding="utf-8").replace(edit.old, edit.new), encoding="utf-8")


def build_tiny(folder: Path) -> Path:
    """The model of all tests, once; built anew where the builder may have changed."""
    shutil.rmtree(folder, ignore_errors=True)
    code = "import sys, pathlib, conformance.tiny as t; t.build_tiny_qwen3(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True)
    return folder


def environment_of(tree: Path, switch: Switch) -> dict[str, str]:
    """Everything started with it imports the copy, servers and engines too. Raises ValueError if it does not."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(tree / "src"), *([inherited] if inherited else [])])
    found = os.environ | ENVIRONMENT | switch.environment | {"PYTHONPATH": path, MARK: str(tree)}
    command = [sys.executable, "-c", "import ascend_plugin, ascend_cli; print(ascend_plugin.__file__)"]
    imported = subprocess.run(command, cwd="/", env=found, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(imported).is_relative_to(tree):
        raise ValueError(f"{imported} would be imported, not what is in {tree}")
    return found


def try_one(one: Marked, folder: Path, limit_s: int = LIMIT_S) -> tuple[str, str]:
    """What became of the test, and in which words."""
    switch = SWITCHES[one.text]
    tree, report = folder / "tree", folder / "report.xml"
    copy(tree)
    apply(switch, tree)
    command = [sys.executable, "-m", "pytest", one.test, "-o", "addopts=", "-p", "no:cacheprovider"]
    command += [f"--basetemp={folder / 'pytest'}", f"--timeout={limit_s}", f"--junitxml={report}"]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tree, env=environment_of(tree, switch), stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_for(report, process, limit_s + TEARDOWN_S)
        except subprocess.TimeoutExpired:
            if not report.is_file():
                return HUNG, f"killed after {limit_s + TEARDOWN_S} s"
        finally:
            _end_what_is_left(tree)
            process.wait()
    return verdict(report)


def _wait_for(report: Path, process: subprocess.Popen[bytes], limit_s: int) -> None:
    """The report is the last that a run says: its interpreter may take a minute more to end. Raises TimeoutExpired."""
    deadline = time.monotonic() + limit_s
    while not report.is_file() and time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return
    process.wait(2 if report.is_file() else 0)


def verdict(report: Path) -> tuple[str, str]:
    """Of a report of one test in JUnit's form."""
    cases = ElementTree.parse(report).findall(".//testcase") if report.is_file() else []
    if len(cases) != 1:
        return f"{len(cases)} tests ran (!)", ""
    for kind in ("error", "failure", "skipped"):
        found = cases[0].find(kind)
        if found is not None:
            break
    else:
        return PASSED, ""
    words = " ".join(found.get("message", "").split())[:160]
    if kind == "failure" and words.startswith("Failed: Timeout"):
        return HUNG, words
    if kind == "failure" and OF_A_TEST.match(words):
        return FAILED, words
    return f"{kind} (!)", words


def _end_what_is_left(tree: Path) -> None:
    """Processes of a run that its test left: that is what some switches do."""
    left = list(_processes_of(tree))
    segments = shared_memory.mapped_by(process.pid for process in left)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=30)
    shared_memory.unlink(segments)


def _processes_of(tree: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(tree):
                yield process


# ------------------------------------------------------------------ all of them


def table(rows: list[tuple[str, str, str, float]]) -> str:
    """As Markdown: test | switch | what became of it | seconds."""
    lines = ["| test | switch | | s |", "| --- | --- | --- | --- |"]
    lines += [f"| {test} | {text} | {what} | {seconds:.0f} |" for test, text, what, seconds in rows]
    return "\n".join(lines)


def chosen(words: str, known: Mapping[str, Switch] = SWITCHES) -> list[Marked]:
    """Those that name one of `A or B`, in the test's name or the switch's, by cost: the quickest first."""
    wanted = [word.strip() for word in words.split(" or ")]
    found = [one for one in marked(ROOT / BATTERY) if any(word in f"{one.test} {one.text}" for word in wanted)]
    order = list(known)
    return sorted(found, key=lambda one: order.index(one.text))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.breaks", description=__doc__)
    parser.add_argument("-k", default="", metavar="WORDS", help="tests or switches that have them: `A or B`")
    parser.add_argument("--limit", default=LIMIT_S, type=int, metavar="SECONDS", help="of one test")
    arguments = parser.parse_args()
    with suppress(OSError):  # a server without its bounds may take all memory: it is to be the one that is killed
        Path("/proc/self/oom_score_adj").write_text("1000")
    if "RELIABILITY_TINY" not in os.environ:
        COPIES.mkdir(parents=True, exist_ok=True)
        ENVIRONMENT["RELIABILITY_TINY"] = str(build_tiny(COPIES / "tiny"))
    rows: list[tuple[str, str, str, float]] = []
    for one in chosen(arguments.k):
        folder = COPIES / f"{os.getpid()}-{len(rows)}"
        folder.mkdir(parents=True)
        begin = time.monotonic()
        what, said = try_one(one, folder, arguments.limit)
        rows.append((f"{one.file}::{one.name}", one.text, what, time.monotonic() - begin))
        print(table(rows[-1:]).splitlines()[-1], f"\n    {said}", flush=True)
        if what in AS_IT_SHOULD:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"    see {folder}", flush=True)
    print("\n" + table(rows))
    return 0 if rows and all(what in AS_IT_SHOULD for _, _, what, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
