"""What a probe is made of: cases, in groups, each of which runs one form of an operator and says how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascend_cli.doctor.probe.bench import Bench

# Cheap and harmless first; what may leave a sick chip behind, last.
GROUPS = (
    "copies",
    "integers",
    "elements",
    "forms",
    "layer",
    "products",
    "attention",
    "delta rule",
    "indexing",
    "quantized",
    "experts",
    "timing",
    "graph",
    "collectives",
    "random",
)
LIMIT_S = 30.0  # of one case, the opening of the device included
HEADS_TOGETHER = (72, 80, 128, 200, 208, 248)  # query and key heads of 128 in one rotation
MASK_SIZE, LONG = 2048, 5000  # keys that the fixed mask of paged attention has, and many more
SLOW_GROUPS = {"collectives": 90.0, "graph": 60.0, "products": 60.0}
EMULATED_PATIENCE = 8  # times as long on an emulated chip, whose host computes, and may have other work


class Status(StrEnum):
    """How a case went."""

    OK = "ok"
    WRONG = "wrong"  # it ran, and the result is not the reference's, or memory beside it was changed
    REFUSED = "refused"  # an error before the launch; the chip is well
    FAULT = "fault"  # the chip stopped: nothing runs in that process any more
    HANG = "hang"  # no answer within the limit
    SKIPPED = "skipped"  # not tried: what it belongs to had failed often enough, or nothing here can run it


class WrongResult(Exception):
    """A result that is not the reference's; the message has the figures."""


class NotHere(Exception):
    """A case that cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Case:
    """One form of an operator.

    `rule` names what is known to go wrong with it on some chip (findings.RULES); a failing case without one is a
    finding of its own. `may_be_refused`: documents say that some chips do not take it, so that a refusal is no news.
    """

    name: str
    run: Callable[[Bench], None]
    rule: str = ""
    may_be_refused: bool = False


@dataclass
class Outcome:
    """How a case went: what is sent to the parent, and kept in the result."""

    case: str
    group: str
    status: Status
    message: str = ""
    rule: str = ""
    may_be_refused: bool = False
    error: float | None = None  # largest difference, relative to the largest value of the reference
    canaries: int = 0  # how many outputs had their surroundings looked at
    time_us: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON, without what says nothing."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", {}, 0, False)}
