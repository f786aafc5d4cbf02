"""The figures by which this repository is judged from outside, each counted here and now.

    .venv/bin/python scripts/counts.py [--mypy]

What a run of minutes or hours has to make first is read from what it left: `make mutation` and scripts/release.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
SCORE = ROOT / "build" / "mutation" / "score.json"
CHECKED = ("src", "conformance", "benchmarks", "scripts", "emulator/python")


def module(path: Path) -> ModuleType:
    """A module of the tests, which are no package that scripts can import."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def patches() -> str:
    from ascend_plugin.compat import PATCHES

    return f"{len(PATCHES)} ({', '.join(patch.file for patch in PATCHES)})"


def guarded_names() -> str:
    return str(len(json.loads((ROOT / "tests/upstream/guarded.json").read_text(encoding="utf-8"))))


def plugin_lines() -> str:
    files = sorted((SRC / "ascend_plugin").rglob("*.py"))
    return f"{sum(map(lines_of, files)):,} in {len(files)} files"


def largest_file() -> str:
    path = max((path for folder in CHECKED for path in (ROOT / folder).rglob("*.py")), key=lines_of)
    return f"{lines_of(path)} lines ({path.relative_to(ROOT)})"


def import_circles() -> str:
    imports = module(ROOT / "tests/unit/test_imports.py")
    return str(len(imports.circles(imports.graph())))


def excluded_modules() -> str:
    """Modules of whose errors mypy is silent; pyproject.toml has the reason of each."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    return str(sum(len(entry["module"]) for entry in settings["overrides"] if entry.get("ignore_errors")))


def mypy_errors() -> str:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


def mutation_score() -> str:
    if not SCORE.is_file():
        return "not measured here: make mutation"
    score = json.loads(SCORE.read_text(encoding="utf-8"))
    return f"{score['killed'] / score['tried']:.1%} ({score['killed']} of {score['tried']} changes were noticed)"


def wheels() -> list[tuple[str, str]]:
    """What each wheel in dist/ holds, by its first folder and the one under it."""
    found = []
    for path in sorted((ROOT / "dist").glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if not name.endswith("/")]
        folders = Counter("/".join(name.split("/")[: 3 if "/lib/" in name else 1]) for name in names)
        held = ", ".join(f"{folder} {count}" for folder, count in sorted(folders.items()))
        found.append((path.name, f"{path.stat().st_size / 1e6:.1f} MB: {held}"))
    return found or [("wheels", "none in dist/: scripts/release.py builds them")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mypy", action="store_true", help="run mypy too (a minute)")
    options = parser.parse_args()
    rows = [
        ("patches of vLLM and torch", patches()),
        ("names of vLLM guarded by tests", guarded_names()),
        ("lines of the plugin", plugin_lines()),
        ("largest Python file", largest_file()),
        ("import circles", import_circles()),
        ("modules excluded from mypy", excluded_modules()),
        ("mypy --strict", mypy_errors() if options.mypy else "not run: --mypy"),
        ("mutation score of the arithmetic", mutation_score()),
        *wheels(),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
