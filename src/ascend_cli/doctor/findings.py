"""What the doctor reports: what was found, why it matters, the command that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How grave a finding is; only an error makes the machine unfit to serve."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's answer. `check` names it for programs and does not change between releases."""

    check: str
    status: Status
    what: str
    why: str = ""
    fix: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Status.OK, what)


def note(check: str, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(check, Status.NOTE, what, why, fix)


def warning(check: str, what: str, why: str, fix: str = "") -> Finding:
    return Finding(check, Status.WARNING, what, why, fix)


def error(check: str, what: str, why: str, fix: str) -> Finding:
    return Finding(check, Status.ERROR, what, why, fix)
