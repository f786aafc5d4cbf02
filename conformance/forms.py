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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ascend_facts import operators
from conformance.architectures import architectures
from conformance.places import Places
from conformance.verify import Verifier, settings_for

VARIABLE = "ASCEND_EMULATOR_FORMS"  # the emulator appends forms to the file that it names


def record(
    names: Iterable[str],
    chips: Sequence[str],
    cache: Path,
    say: Callable[[str], None],
    starts: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Forms launched on each chip, by engines of these architectures; `starts` limits the engine starts by name."""
    known = architectures()
    with tempfile.TemporaryDirectory(prefix="ascend-forms-") as folder, Places() as places:
        files = {chip: Path(folder) / f"{chip}.txt" for chip in chips}
        for name in names:
            verifier = Verifier(known[name], places, cache, cache / "logs", say)
            checkpoint = verifier.checkpoint()
            for chip in chips:
                with recorded_to(files[chip]):  # the machine is made with the first engine, and inherits it
                    places.chips(chip)
                    for setting in settings_for(known[name]):
                        if setting.name not in known[name].impossible and (not starts or setting.name in starts):
                            verifier.engine(checkpoint, chip, setting)
        return {chip: read(file) for chip, file in files.items()}


@contextmanager
def recorded_to(file: Path) -> Iterator[None]:
    """Emulated processes that start meanwhile write their forms there."""
    previous = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(file)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if previous is not None:
            os.environ[VARIABLE] = previous


def read(file: Path) -> list[str]:
    """The forms in a file, each once, sorted."""
    return sorted(set(file.read_text().splitlines())) if file.exists() else []


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
        chosen.output.write_text(json.dumps(found))
    missing = 0
    for chip, forms in found.items():
        for form in operators.without_row(forms, chip):
            print(f"{chip}: {form}")
            missing += 1
    print(f"{missing} forms have no row in {operators.TABLE.name}.")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
