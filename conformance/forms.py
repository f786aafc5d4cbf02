"""Which forms of operators the plugin launches: engines of many architectures on emulated chips, their counters read.

A form is an operator with the types, formats, ranks and layouts of its tensors, as the emulator's counters write it
(emulator/src/core/forms.h). `python -m conformance.forms NAME... [--chip ...]` prints those that the operator table
(src/ascend_facts/operators.toml) has no row for; `--output` keeps all of them as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ascend_facts import operators
from conformance.architectures import architectures
from conformance.places import Places
from conformance.verify import Verifier, settings_for

VARIABLE = "ASCEND_EMULATOR_FORMS"  # asks the emulator to count forms


def record(
    names: Iterable[str],
    chips: Sequence[str],
    cache: Path,
    say: Callable[[str], None],
    starts: Sequence[str] = (),
) -> dict[str, Counter[str]]:
    """Launches by form of each chip, from engines of these architectures; `starts` limits the engine starts by name."""
    known = architectures()
    found: dict[str, Counter[str]] = {chip: Counter() for chip in chips}
    previous = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"  # machines inherit it
    try:
        with Places() as places:
            for name in names:
                verifier = Verifier(known[name], places, cache, cache / "logs", say)
                checkpoint = verifier.checkpoint()
                for chip in chips:
                    for setting in settings_for(known[name]):
                        if setting.name in known[name].impossible or (starts and setting.name not in starts):
                            continue
                        verifier.engine(checkpoint, chip, setting)
            for chip in chips:
                total = places.chips(chip).machine.stats().get("total", {})
                found[chip].update(total.get("forms", {}))
    finally:
        os.environ.pop(VARIABLE)
        if previous is not None:
            os.environ[VARIABLE] = previous
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures; all of them if none is named")
    parser.add_argument("--chip", action="append", help="emulated chip, may be repeated (310P3 and 910B3)")
    parser.add_argument("--only", action="append", default=[], help="engine starts, as of `python -m conformance`")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ascend-plugin/conformance")
    parser.add_argument("--output", type=Path, help="JSON file for everything that was launched")
    chosen = parser.parse_args()
    names = chosen.names or list(architectures())
    found = record(names, chosen.chip or ["310P3", "910B3"], chosen.cache, print, chosen.only)
    if chosen.output:
        chosen.output.write_text(json.dumps({chip: dict(sorted(forms.items())) for chip, forms in found.items()}))
    missing = 0
    for chip, forms in found.items():
        for form in operators.without_row(forms, chip):
            print(f"{chip}: {form}")
            missing += 1
    print(f"{missing} forms have no row in {operators.TABLE.name}.")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
