"""Counts of representative steps against the record: what a change costs must be somebody's purpose.

python -m tests.steps                        print what moved; exit code 1 if anything did
python -m tests.steps --accept               record the counts as they are now: they were looked at
python -m tests.steps --engines "dense, graphs" --chips 310P3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.steps import cases, record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="write what was counted to the record")
    parser.add_argument("--chips", nargs="+", choices=cases.CHIPS, default=list(cases.CHIPS))
    names = [engine.name for engine in cases.ENGINES]
    parser.add_argument("--engines", nargs="+", choices=names, metavar="NAME", default=names)
    chosen = parser.parse_args()
    known = record.read()
    with tempfile.TemporaryDirectory() as folder:
        counted = record.count(Path(folder), chosen.chips, chosen.engines)
    moved = record.differences(known, counted)
    for sentence in moved:
        print(sentence)
    print(f"{len(counted)} steps were counted; {len({line.split(':')[0] for line in moved})} of them moved.")
    if chosen.accept:
        record.write({**known, **counted})
        return 0
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
