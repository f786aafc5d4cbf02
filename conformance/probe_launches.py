"""Which operators each case of the probe launches, recorded on emulated chips: ascend_cli.doctor.probe, launches.json.

`python -m conformance.probe_launches` writes it anew. An imported result of a card says of cases how they went;
this says of which operators they speak.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from ascend_cli.doctor.probe import parent
from ascend_cli.doctor.probe.case import GROUPS
from ascend_facts import chips, operators
from conformance.forms import VARIABLE, read

TARGET = Path(parent.__file__).with_name("launches.json")
CHIPS = ("310P3", "910B3")
EMULATOR = {"ASCEND_EMULATOR": "1", "ASCEND_EMULATOR_RULES": "none", "ASCEND_EMULATOR_COUNT": "2"}


def record(chip: str) -> dict[str, list[str]]:
    """Operators by case, of every case that runs on the chip."""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="ascend-launches-") as folder:
        file = Path(folder) / "forms.txt"
        os.environ.update(EMULATOR, ASCEND_EMULATOR_CHIP=chip, **{VARIABLE: str(file)})
        child = parent.Child()
        try:
            child.answer(parent.START_S)
            for group in GROUPS:
                names = _cases(child, group)
                for name in names:
                    file.unlink(missing_ok=True)
                    _try(child, group, [other for other in names if other != name])
                    found[name] = sorted({operators.split(form)[0] for form in read(file)})
        finally:
            child.close()
    return {name: launched for name, launched in found.items() if launched}


def _cases(child: parent.Child, group: str) -> list[str]:
    """The names of a group's cases: of a fork that is told to skip none and ended as soon as it has said them."""
    child.order(group=group, chip=0, skip=[], only_list=True)
    names: list[str] = []
    while "code" not in (line := child.answer(parent.START_S) or {"code": 1}):
        names = [case[0] for case in line.get("cases", [])] or names
    return names


def _try(child: parent.Child, group: str, skip: list[str]) -> None:
    child.order(group=group, chip=0, skip=skip)
    while "code" not in (child.answer(parent.START_S) or {"code": 1}):
        pass


def main() -> None:
    result = {chips.find(chip).family: record(chip) for chip in CHIPS}
    TARGET.write_text(json.dumps(result, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(TARGET, {family: len(cases) for family, cases in result.items()})


if __name__ == "__main__":
    main()
