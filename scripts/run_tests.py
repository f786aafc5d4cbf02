"""`make test`: the tests that every commit must pass, as two runs of pytest side by side, one for each of two cores.

One half starts engines, the other starts none; they take about as long.
The output of the second half is printed when both are done. Arguments are passed on to both runs (`-k`, `-x`).
Exit code: 0 if both passed, 5 if there was nothing to run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_ENGINES = ("unit", "upstream", "laboratory")
EMPTY = 5  # pytest's exit code where -k leaves nothing of a half


def halves() -> tuple[list[str], list[str]]:
    """Folders of tests that start engines, and of those that do not; every folder is in one of them."""
    folders = [folder.name for folder in sorted((ROOT / "tests").iterdir()) if any(folder.rglob("test_*.py"))]
    engines = [f"tests/{name}" for name in folders if name not in WITHOUT_ENGINES]
    return engines, [*(f"tests/{name}" for name in WITHOUT_ENGINES), "emulator/tests"]


def main() -> int:
    engines, others = halves()
    with tempfile.TemporaryDirectory(prefix="ascend-tests-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "others.log"
        with log.open("wb") as output:
            beside = subprocess.Popen(command(others, folder, "others"), cwd=ROOT, stdout=output, stderr=output)
            first = subprocess.run(command(engines, folder, "engines"), cwd=ROOT, check=False).returncode
            second = beside.wait()
        print(log.read_text(encoding="utf-8", errors="replace"))
    return verdict(first, second)


def verdict(*codes: int) -> int:
    """The exit code of both: a half may be left with nothing by -k, all of them may not; a signal's is negative."""
    if set(codes) == {EMPTY}:
        return EMPTY
    return next((code for code in codes if code not in (0, EMPTY)), 0)


def command(folders: list[str], folder: str, name: str) -> list[str]:
    """A run with files of its own: two that share them break each other."""
    own = [f"--basetemp={folder}/{name}", "-o", f"cache_dir={folder}/cache-{name}"]
    return [sys.executable, "-m", "pytest", "-m", "not slow", *own, *folders, *sys.argv[1:]]


if __name__ == "__main__":
    sys.exit(main())
