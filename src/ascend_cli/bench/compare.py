"""Two sets of results side by side: what changed, and whether the change is more than the runs' own spread."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ascend_cli.bench.results import Row

LEAST_CHANGE = 0.03  # below this no difference is called one, however small the spread


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one point in A and B. `ratio` is B over A.

    `verdict` is better, worse, same, or unknown where a side was refused or only one side ran on real chips.
    """

    point: str
    metric: str
    a: float
    b: float
    ratio: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    changes: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    caveats: tuple[str, ...]
    pairs: int = 0

    @property
    def has_regression(self) -> bool:
        return any(change.verdict == "worse" for change in self.changes)


def compare(a_rows: list[Row], b_rows: list[Row]) -> Comparison:
    """Pair rows by model, kind and workload (and size where A has several), and judge each metric."""
    changes: list[Change] = []
    caveats: list[str] = []
    unpaired_b = list(b_rows)
    only_a = []
    for a in a_rows:
        candidates = [b for b in unpaired_b if b.point == a.point]
        same_size = [b for b in candidates if b.tensor_parallel_size == a.tensor_parallel_size]
        partner = next(iter(same_size or candidates), None)
        if partner is None:
            only_a.append(_name(a))
            continue
        unpaired_b.remove(partner)
        changes.extend(_changes(a, partner))
        caveats.extend(_caveats(a, partner))
    return Comparison(
        tuple(changes),
        tuple(only_a),
        tuple(_name(b) for b in unpaired_b),
        tuple(dict.fromkeys(caveats)),
        pairs=len(a_rows) - len(only_a),
    )


def _name(row: Row) -> str:
    return f"{row.model} {row.workload.label} TP{row.size_text}"


def _changes(a: Row, b: Row) -> list[Change]:
    noise = max(LEAST_CHANGE, a.spread + b.spread)
    point = _name(a) if a.tensor_parallel_size == b.tensor_parallel_size else f"{_name(a)} -> TP{b.size_text}"
    metrics = [("output tok/s", a.typical.output_tokens_per_s, b.typical.output_tokens_per_s, True)]
    for name, attribute in (("median TTFT ms", "ttft_ms"), ("median TPOT ms", "tpot_ms"), ("p99 ITL ms", "itl_ms")):
        first, second = getattr(a.typical, attribute), getattr(b.typical, attribute)
        if first is not None and second is not None:
            statistic = "p99" if "p99" in name else "median"
            metrics.append((name, getattr(first, statistic), getattr(second, statistic), False))
    is_comparable = not (a.refused or b.refused) and a.emulated == b.emulated
    found = [_change(point, name, first, second, more, noise) for name, first, second, more in metrics if first]
    return found if is_comparable else [replace(change, verdict="unknown") for change in found]


def _change(point: str, metric: str, a: float, b: float, more_is_better: bool, noise: float) -> Change:
    ratio = b / a
    gain = ratio - 1 if more_is_better else 1 - ratio
    verdict = "better" if gain > noise else "worse" if gain < -noise else "same"
    return Change(point, metric, a, b, ratio, verdict)


def _caveats(a: Row, b: Row) -> list[str]:
    found = []
    if a.emulated != b.emulated:
        found.append(
            "one side ran on emulated chips: its times are not a chip's, so a verdict here means nothing for hardware"
        )
    if a.chip != b.chip:
        found.append(f"different chips: {a.chip or 'unknown'} and {b.chip or 'unknown'}")
    if a.tensor_parallel_size != b.tensor_parallel_size:
        found.append(f"different tensor-parallel sizes: {a.size_text} and {b.size_text}")
    if len(a.measured) == 1 or len(b.measured) == 1:
        found.append(f"single runs have no spread: changes below {LEAST_CHANGE:.0%} are called the same")
    for row in (a, b):
        if row.refused:
            found.append(f"{_name(row)} was refused ({row.refused})")
    return found
