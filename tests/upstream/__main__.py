"""What of vLLM moved under the plugin, and the record of what was read.

python -m tests.upstream                      print what moved; exit code 1 if anything did
python -m tests.upstream --accept NAME...     record the names as they are now: they were compared with ours
python -m tests.upstream --accept-all         the same for all, on a release that every test has passed on
"""

from __future__ import annotations

import argparse
import sys

from tests.upstream import guarded
from tests.upstream.source import Missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--accept-all", action="store_true")
    arguments = parser.parse_args()
    names, record = guarded.names(), guarded.read_record()
    for name in list(names) if arguments.accept_all else arguments.accept:
        try:
            record[name] = guarded.guard_of(name, names[name])
        except (KeyError, Missing) as error:
            print(f"not recorded: {error}", file=sys.stderr)
            return 1
    record = {name: guard for name, guard in record.items() if name in names}
    if arguments.accept or arguments.accept_all:
        guarded.write_record(record)
    moved = [name for name in names if name not in record]
    for name in moved:
        print(f"{name} is replaced or overridden by {names[name]} and not recorded: read it, then --accept it.")
    differences = list(filter(None, (guarded.difference(name, guard) for name, guard in record.items())))
    for sentence in differences:
        print(sentence)
    print(f"{len(names)} names of vLLM are guarded; {len(moved) + len(differences)} want a look.")
    return 1 if moved or differences else 0


if __name__ == "__main__":
    sys.exit(main())
