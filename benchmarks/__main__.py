"""`python -m benchmarks NAME ...` runs a benchmark; without a name it lists them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def names() -> list[str]:
    """Every module of this package that is a command; those starting with an underscore serve the others."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in names():
        exit_code: int = importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
        return exit_code
    asked_for_help = not arguments or arguments[0] in ("-h", "--help")
    out = sys.stdout if asked_for_help else sys.stderr
    if not asked_for_help:
        print(f"There is no benchmark {arguments[0]!r}; choose one of these.", file=out)
    print("python -m benchmarks NAME [--help]\n", file=out)
    for name in names():
        summary = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()
        print(f"  {name:<20} {summary[0] if summary else ''}", file=out)
    return 0 if asked_for_help else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
