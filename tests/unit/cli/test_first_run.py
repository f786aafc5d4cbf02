"""`ascend doctor --first-run`: each kind of difference between steps is reported by the first step that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ascend_cli.doctor.first_run import command
from ascend_cli.doctor.first_run.compare import Answer, compare
from ascend_cli.doctor.first_run.steps import STEPS, Step, rounds

TOKENS = [5, 6, 7]
Change = Callable[[str, int, dict[str, Any]], None]


def answer(number: int) -> dict[str, Any]:
    """Every token is certain but for one other that is 3 behind."""
    positions = [{str(token): -0.05, str(token + 100): -3.05} for token in TOKENS]
    return {"prompt": [1, number], "tokens": list(TOKENS), "positions": positions}


def run(
    change: Change | None = None, step_name: str = "", failed: str = "", chips: int = 2, cpu: str = ""
) -> list[Any]:
    """The steps, of which one answers otherwise."""

    def start(step: Step) -> Mapping[str, Any]:
        if failed and step.name == step_name:
            return {"failed": failed}
        answered = []
        for name, numbers in rounds():
            part = {number: answer(number) for number in numbers}
            if change is not None and step.name == step_name:
                for number, each in part.items():
                    change(name, number, each)
            answered.append(part)
        return {"rounds": answered}

    def on_the_cpu(base: Mapping[int, Answer]) -> tuple[dict[int, Answer], str]:
        return {number: Answer.of(answer(number)) for number in base}, cpu

    return command.run_steps(start, on_the_cpu, chips)


def another_token(only: str) -> Change:
    def change(name: str, number: int, each: dict[str, Any]) -> None:
        if name == only and number == 2:
            each["tokens"][1] = 106
            each["positions"][1] = {"106": -0.05, "6": -3.05}

    return change


def shifted(by: float) -> Change:
    def change(name: str, number: int, each: dict[str, Any]) -> None:
        if name == "9 together" and number == 4:
            each["positions"][2]["7"] -= by

    return change


def test_steps_that_agree_are_the_same() -> None:
    results = run()
    assert command.first_difference(results) == ""
    assert [result.name for result in results] == [step.name for step in STEPS]
    assert all(verdict.same for result in results for verdict in result.verdicts)


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_another_token_in_a_batch_names_the_step_and_the_batch(step: str) -> None:
    results = run(another_token("17 together"), step)
    found = command.first_difference(results)
    assert found == f"{step}, 17 together: prompt 3: token 2 is 106 where 6 is likelier by 3.00"


def test_an_eager_run_that_differs_from_the_cpu_is_the_first_difference() -> None:
    found = command.first_difference(run(another_token("one at a time"), "eager"))
    assert found.startswith("eager, one at a time, against the CPU in float32: prompt 3: token 2 is 106 where")


def test_a_log_probability_that_is_off_is_a_difference_and_rounding_is_none() -> None:
    assert "has a log-probability off by 0.50" in command.first_difference(run(shifted(0.5), "graphs"))
    assert command.first_difference(run(shifted(0.05), "graphs")) == ""


def test_a_step_that_dies_is_named_and_the_others_are_tried() -> None:
    results = run(step_name="graphs", failed="its process ended with -9: killed")
    assert command.first_difference(results) == "graphs: its process ended with -9: killed"
    assert results[2].verdicts and results[3].verdicts


def test_without_an_eager_run_the_next_step_is_the_base() -> None:
    results = run(step_name="eager", failed="RuntimeError: no")
    assert command.first_difference(results).startswith("eager: RuntimeError")
    assert results[1].verdicts[0].part.startswith("one at a time, against the CPU")


def test_what_cannot_run_here_is_left_out_with_a_reason() -> None:
    results = run(chips=1, cpu="float32 takes 61 GiB and 20 GiB of host memory are free")
    assert results[3].skipped == "needs 2 chips, and here is 1"
    assert "left out: float32 takes 61 GiB" in results[0].verdicts[0].part
    assert command.first_difference(results) == ""


def test_ties_may_change_places_and_end_the_comparison() -> None:
    base = Answer([1], [5, 6], [{"5": -0.7, "9": -0.75}, {"6": -0.1}])
    tie = Answer([1], [9, 8], [{"9": -0.7, "5": -0.75}, {"8": -0.1}])
    assert compare(tie, base).what == ""
    unlikely = Answer([1], [8, 6], [{"8": -0.1}, {"6": -0.1}])
    assert "token 1 is 8 where 5 is likelier by inf" in compare(unlikely, base).what


def test_no_number_is_a_difference() -> None:
    base = Answer([1], [5], [{"5": -0.1}])
    assert "off by nan" in compare(Answer([1], [5], [{"5": float("nan")}]), base).what
