"""The model of time fitted to public measurements, and every measurement beside what the model says of it.

Rows of ascend_facts/calibration.toml that are marked so are in the fit; the model predicts the others. The fit makes
the sum of squared logarithms of model over measured as small as it can, one constant after the other, until none moves.
With --write it writes ascend_facts/time_model.toml: the emulator reads the constants when it is built.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import ascend_facts
from benchmarks._calibration import Calibration, Constants, Measurement, predict, read

CONSTANTS = Path(ascend_facts.__file__).with_name("time_model.toml")

# Where the search begins, and what stays there because no public measurement separates it from others.
START = {
    "waits_us": 60.0, "host_ms_a_layer": 0.8, "host_ms_a_request": 0.4, "launch_us": 10.0,
    "310p.bandwidth_share": 0.8, "310p.cube_share": 0.5, "310p.step_us": 25.0,
    "910b.bandwidth_share": 0.8, "910b.cube_share": 0.8, "910b.l2_share": 2.0,
}  # fmt: skip
ASSUMED_STEP_US = {"910b": 8.0, "910_93": 6.0, "950": 4.0}  # of HCCS, its switch, and UnifiedBus
LIMITS = {"share": 1.0, "l2_share": 8.0}
SWEEPS = 60

FROM = {
    "310p": "shares: Qwen3-8B W8A8SC and the 910A's best product; step_us: Qwen3-32B on four chips; "
    "L2 no faster than memory, as on the 910A",
    "910b": "shares: products and vector operators on 910B2 and 910B3; launch_us: with Qwen3-32B on eight chips; "
    "step_us assumed",
    "910_93": "those of 910B, of which it has two dies; step_us assumed",
    "950": "those of 910B; launch_us with a product on 950PR; step_us assumed",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibrate", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {CONSTANTS.name}")
    parser.add_argument("--json", type=Path, help="where constants and rows go")
    chosen = parser.parse_args(arguments)
    calibration = read()
    values = fit(calibration)
    constants = constants_of(values)
    print("\n".join(table(calibration, constants)))
    if chosen.write:
        CONSTANTS.write_text(document(calibration, constants), encoding="utf-8")
    if chosen.json:
        rows = [
            {"row": row.name, "chip": row.facts["chip"], "figure": row.figure, "measured": row.measured,
             "model": predict(row, constants, calibration.chips), "fit": row.in_fit}
            for row in calibration.rows
        ]  # fmt: skip
        chosen.json.write_text(json.dumps({"schema": "ascend.benchmark.calibrate/1", "rows": rows, **values}, indent=1))
    return 0


# ------------------------------------------------------------------------------------------------------------- the fit


def constants_of(values: Mapping[str, float]) -> Constants:
    def family(name: str, like: str) -> dict[str, float]:
        share = values[f"{like}.bandwidth_share"]
        return {
            "bandwidth_share": share,
            "cube_share": values[f"{like}.cube_share"],
            "l2_share": values.get(f"{like}.l2_share", share),
            "launch_us": values["launch_us"],
            "step_us": values.get(f"{name}.step_us", ASSUMED_STEP_US.get(name, 0.0)),
        }

    likes = {"310p": "310p", "910b": "910b", "910_93": "910b", "950": "910b"}
    families = {name: family(name, like) for name, like in likes.items()}
    return Constants(families, values["waits_us"], values["host_ms_a_layer"], values["host_ms_a_request"])


def fit(calibration: Calibration) -> dict[str, float]:
    """The constants, rounded to three digits: what is written is what was judged."""
    rows = [row for row in calibration.rows if row.in_fit]
    affected = {name: [row for row in rows if _moves(name, row, calibration)] for name in START}
    values = dict(START)

    def misfit(name: str) -> float:
        constants = constants_of(values)
        errors = (math.log(predict(row, constants, calibration.chips) / row.measured) for row in affected[name])
        return sum(error**2 for error in errors)

    for _ in range(SWEEPS):
        before = dict(values)
        for name in values:
            values[name] = _best(values, name, misfit)
        if all(abs(values[name] / before[name] - 1) < 1e-3 for name in values):
            break
    return {name: float(f"{value:.3g}") for name, value in values.items()}


def _moves(name: str, row: Measurement, calibration: Calibration) -> bool:
    """Whether a row can depend on a constant: the fit asks no others."""
    if name.startswith("host_"):
        return row.facts.get("mode") == "piecewise"
    if name == "waits_us":
        return bool(row.facts.get("waits"))
    family, _, _ = name.rpartition(".")
    return not family or (calibration.chips[row.facts["chip"]].family == "310p") == (family == "310p")


def _best(values: dict[str, float], name: str, misfit: Callable[[str], float]) -> float:
    """The value of one constant with the least misfit, within a factor of three of the present: a golden section."""
    low, high = math.log(values[name] / 3), math.log(min(values[name] * 3, _limit(name)))
    ratio = (math.sqrt(5) - 1) / 2

    def at(position: float) -> float:
        values[name] = math.exp(position)
        return misfit(name)

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = at(left), at(right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = at(right)
    return math.exp((low + high) / 2)


def _limit(name: str) -> float:
    if name.endswith("l2_share"):
        return LIMITS["l2_share"]
    return LIMITS["share"] if name.endswith("_share") else math.inf


# ------------------------------------------------------------------------------------------------------ what is printed


def table(calibration: Calibration, constants: Constants) -> list[str]:
    """Every row: measured, model, error; and the errors of what the fit had not seen."""
    lines = []
    for kind, title, unit in (("operator", "Operators, in us", ""), ("engine", "Engines", "")):
        lines += [
            f"\n{title}{unit}\n",
            "| chip | measurement | figure | measured | model | error | |",
            "|" + " --- |" * 7,
        ]
        for row in calibration.rows:
            if row.kind == kind:
                lines.append(_line(row, constants, calibration))
    return [*lines, "", *(_summary(kind, calibration, constants) for kind in ("operator", "engine"))]


def _summary(kind: str, calibration: Calibration, constants: Constants) -> str:
    """Of predicted rows, in all and without the longest series, whose rows resemble each other."""
    rows = predicted(calibration, kind)
    sources = [row.source for row in rows]
    longest = max(sources, key=sources.count)
    parts = []
    for chosen in (rows, [row for row in rows if row.source != longest]):
        errors = sorted(abs(row.error(constants, calibration.chips)) for row in chosen)
        close = sum(error <= 0.15 for error in errors)
        parts.append(
            f"{len(errors)} rows, half of them within {errors[_position(errors, 0.5)]:.0%}, {close} within 15 %, "
            f"the worst {errors[-1]:.0%}"
        )
    return f"Held out, {kind}s: {parts[0]}. Without the longest series: {parts[1]}."


def predicted(calibration: Calibration, kind: str) -> list[Measurement]:
    """The rows that the fit has not seen and whose source was found again."""
    return [row for row in calibration.rows if row.kind == kind and not row.in_fit and row.was_found]


def _line(row: Measurement, constants: Constants, calibration: Calibration) -> str:
    model = predict(row, constants, calibration.chips)
    mark = "fitted" if row.in_fit else "predicted"
    if not row.was_found:
        mark += ", source not found again"
    figure = {"time_us": "us", "tpot_ms": "ms a token", "output_tokens_per_s": "tokens/s"}[row.figure]
    return (
        f"| {row.facts['chip']} | {row.name} | {figure} | {row.measured:.1f} | {model:.1f} | "
        f"{model / row.measured - 1:+.0%} | {mark} |"
    )


def document(calibration: Calibration, constants: Constants) -> str:
    """time_model.toml: the constants by family, and how far predictions of decoding were off."""
    head = CONSTANTS.read_text(encoding="utf-8").split("\n\n[", 1)[0]
    parts = [head]
    for name, family in constants.families.items():
        lines = [f"{key} = {value!r}" for key, value in family.items()]
        parts.append("\n".join([f"[families.{name}]", *lines, f'from = "{FROM[name]}"']))
    parts.append("\n".join(["[hosts]", *_hosts(constants)]))
    parts.append("\n".join(_errors(calibration, constants)))
    return "\n\n".join(parts) + "\n"


def _hosts(constants: Constants) -> list[str]:
    """What measurements have beside the chip's work: of sources and of other engines, never of this plugin."""
    return [
        f"waits_us = {constants.waits_us:g}  # of launching one operator and waiting for it, in one source",
        f"piecewise_ms_a_layer = {constants.host_ms_a_layer:g}  # vllm-ascend 0.13.0rc1, between pieces of a graph",
        f"piecewise_ms_a_request = {constants.host_ms_a_request:g}",
    ]


def _errors(calibration: Calibration, constants: Constants) -> list[str]:
    """Of rows whose step is replayed as a graph, which is what plans model."""
    rows = [row for row in predicted(calibration, "engine") if row.facts["mode"] == "graph"]
    errors = sorted(abs(row.error(constants, calibration.chips)) for row in rows)
    return [
        "# Of predicted engines that replay a step as a graph: half of the rows, and four in five, are off by no more.",
        "[errors]",
        f"half = {errors[_position(errors, 0.5)]:.2f}",
        f"most = {errors[_position(errors, 0.8)]:.2f}",
        f"rows = {len(errors)}",
    ]


def _position(errors: list[float], part: float) -> int:
    """Of the error that this part of the sorted rows does not exceed."""
    return math.ceil(part * len(errors)) - 1
