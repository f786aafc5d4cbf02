"""CANN's error codes as sentences: what happened, in which phase, and what to do."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

NAMED = re.compile(r"current working operator name is (\w+)")  # torch_npu's words, of an older interface's operators
OPERATOR = re.compile(r"\b(?:aclnn|Hccl|aclop|atb::?)\w+")
CHIP = re.compile(r"\bchip (\d+)|\bdevice[ _]?id[ :=]+(\d+)|\bnpu:(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DeviceError:
    """One kind of failure; `codes` are words that an exception's text has."""

    codes: tuple[str, ...]
    says: str
    remedy: str

    def match(self, text: str) -> str | None:
        """The first of the codes that stands in a text as a word."""
        for code in self.codes:
            if re.search(rf"(?<![\w-]){re.escape(code)}(?!\w|[.]\d)", text):
                return code
        return None


@cache
def known_errors() -> tuple[DeviceError, ...]:
    document = tomllib.loads(files("ascend_facts").joinpath("device_errors.toml").read_text(encoding="utf-8"))
    remedies = document["remedies"]["en"]
    return tuple(DeviceError(tuple(one["codes"]), one["says"], remedies[one["remedy"]]) for one in document["error"])


def explain(text: str, phase: str, chip: int | None = None) -> str | None:
    """One line about an exception's text; None if it is none of the device's.

    phase: what was being done, as words that follow "while" ("weights were loaded").
    """
    for error in known_errors():
        code = error.match(text)
        if code is None:
            continue
        operator = NAMED.search(text) or OPERATOR.search(text)
        named = f", in {operator[operator.lastindex or 0]}" if operator else ""
        found = CHIP.search(text)
        number = next((group for group in found.groups() if group), None) if found else None
        where = f"Chip {number if number is not None else chip}" if (number or chip is not None) else "The device"
        label = code if code[0].isdigit() or code[0] == "-" else ""
        told = f" ({label}{named})" if label else (f" ({named[2:]})" if named else "")
        return f"{where}, while {phase}: {error.says}{told}. {error.remedy}"
    return None
