"""The probe's parent: what it makes of children that answer, die, hang and lose their device, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ascend_cli.doctor.probe import findings, parent
from ascend_cli.doctor.probe.case import EMULATED_PATIENCE, LIMIT_S, Outcome, Status, WrongResult
from ascend_cli.errors import NothingDone
from ascend_facts import chips

DUO = chips.find("310P3")
CASES = [["a", "int64_add", False], ["b", "int64_add", False], ["c", "int64_add", False], ["d", "", False]]
HANG = None


class Scripted:
    """A child that plays how each fork goes: a dictionary of what becomes of cases, by name."""

    def __init__(self, fates: dict[str, str]) -> None:
        self.fates = fates
        self.orders: list[dict[str, Any]] = []
        self.limits_s: list[float] = []
        self._lines: Iterator[dict[str, Any] | None] = iter(())

    def order(self, **order: Any) -> None:
        self.orders.append({**order, "skip": list(order["skip"])})
        self._lines = self._play([case for case in CASES if case[0] not in order["skip"]])

    def _play(self, cases: list[list[Any]]) -> Iterator[dict[str, Any] | None]:
        yield {"pid": 2**22 + 1}  # of no process
        yield {"installation": {"soc": "Ascend310P3", "cann": None, "driver": None, "emulated": True}}
        yield {"cases": cases}
        for name, rule, _ in cases:
            yield {"begins": name}
            fate = self.fates.get(name, "ok")
            if fate == "hang":
                yield HANG
                yield {"code": -9}
                return
            if fate == "dies":
                yield {"code": -11}
                return
            yield {"outcome": {"case": name, "group": "integers", "status": fate, "rule": rule}}
            if fate == "fault":
                yield {"code": 3}
                return
        yield {"code": 0}

    def answer(self, limit_s: float) -> dict[str, Any] | None:
        self.limits_s.append(limit_s)
        return next(self._lines)

    def last_words(self) -> str:
        return "no device"


def tried(**fates: str) -> tuple[parent.Run, Scripted]:
    child, run = Scripted(fates), parent.Run()
    parent._Group(child, "integers", 0, run, lambda outcome: None).run()
    return run, child


def statuses(run: parent.Run) -> dict[str, str]:
    return {outcome.case: outcome.status.value for outcome in run.outcomes}


def test_a_group_that_answers_takes_one_fork() -> None:
    run, child = tried()
    assert statuses(run) == {"a": "ok", "b": "ok", "c": "ok", "d": "ok"}
    assert len(child.orders) == 1


@pytest.mark.parametrize(("fate", "status"), [("dies", "fault"), ("fault", "fault"), ("hang", "hang")])
def test_what_ends_a_fork_costs_one_case_and_the_rest_is_tried(fate: str, status: str) -> None:
    run, child = tried(a=fate)
    assert statuses(run) == {"a": status, "b": "ok", "c": "ok", "d": "ok"}
    assert [order["skip"] for order in child.orders] == [[], ["a"]]
    assert run.outcomes[0].rule == "int64_add", "a case that never answered keeps its rule"


def test_cases_of_a_rule_that_failed_twice_are_left_alone_and_others_are_tried() -> None:
    run, _ = tried(a="dies", b="dies")
    assert statuses(run) == {"a": "fault", "b": "fault", "c": "skipped", "d": "ok"}


def test_an_emulated_chip_has_more_time_for_a_case() -> None:
    """Its host computes, beside other work: a limit meant for a card would call that a sick chip."""
    _, child = tried()
    assert child.limits_s[:2] == [LIMIT_S] * 2, "until the child has said where it is"
    assert set(child.limits_s[2:]) == {LIMIT_S * EMULATED_PATIENCE}


def test_three_hangs_stop_everything() -> None:
    run = parent.Run(outcomes=[Outcome("x", "copies", Status.HANG), Outcome("y", "copies", Status.HANG)])
    child = Scripted({"a": "hang"})
    parent._Group(child, "integers", 0, run, lambda outcome: None).run()
    assert "npu-smi set -t reset" in run.stopped
    assert len(child.orders) == 1


def test_a_chip_that_cannot_be_opened_is_said_in_a_line() -> None:
    class Refused(Scripted):
        def _play(self, cases: list[list[Any]]) -> Iterator[dict[str, Any] | None]:
            yield {"pid": 2**22 + 1}
            yield {"failed": "NoChip: No Ascend chip found"}

    with pytest.raises(NothingDone, match="cases of integers cannot be tried: NoChip"):
        parent._Group(Refused({}), "integers", 0, parent.Run(), lambda outcome: None).run()


class Times:
    """A bench whose clock says these microseconds, one after another."""

    def __init__(self, *times: float) -> None:
        self._times, self.facts, self.times_count = iter(times), dict[str, Any](), True

    def timed(self, launch: Any) -> float:
        return next(self._times)


def test_a_form_is_slow_if_it_is_slow_each_time() -> None:
    pytest.importorskip("torch")
    from ascend_cli.doctor.probe.cases_elements import compare_times

    once: Any = Times(10, 900, 10, 12)
    compare_times(once, lambda: None, lambda: None)
    assert once.facts == {"times_its_neighbor": 1.2}
    always: Any = Times(10, 900, 10, 900, 10, 900)
    with pytest.raises(WrongResult, match="900 us where its neighbor takes 10"):
        compare_times(always, lambda: None, lambda: None)


# ---------------------------------------------------------------- what outcomes mean


def outcome(case: str, status: Status, rule: str = "", **more: Any) -> Outcome:
    return Outcome(case, "experts", status, rule=rule, **more)


def test_findings_are_one_a_rule_and_one_for_each_case_without() -> None:
    found = findings.findings_of(
        [
            outcome("a", Status.WRONG, "ragged_copy", message="1 of 9"),
            outcome("b", Status.WRONG, "ragged_copy"),
            outcome("c", Status.HANG),
            outcome("d", Status.REFUSED, may_be_refused=True),
            outcome("e", Status.SKIPPED),
            outcome("f", Status.OK),
        ]
    )
    assert [(each.rule, each.cases, bool(each.plugin)) for each in found] == [
        ("ragged_copy", ("a", "b"), True),
        ("other", ("c",), False),
    ]
    assert found[0].said == "wrong: 1 of 9"


GATING = "npu_moe_gating_top_k_softmax, "


def test_forms_follow_from_outcomes_and_nothing_is_taken_from_what_was_not_tried() -> None:
    right = [outcome(f"{GATING}{n} tokens", Status.OK) for n in (1025, 2048)]
    assert findings.forms_of(right, {}, DUO, True) == {"gating_rows": 0}
    assert findings.forms_of(right[:1], {}, DUO, True) == {}, "a case is missing"
    wrong = [right[0], outcome(f"{GATING}2048 tokens", Status.WRONG)]
    assert findings.forms_of(wrong, {}, DUO, True) == {"gating_rows": 1024}
    skipped = [right[0], outcome(f"{GATING}2048 tokens", Status.SKIPPED)]
    assert findings.forms_of(skipped, {}, DUO, True) == {}


def test_the_most_heads_that_were_right() -> None:
    def heads(**fates: Status) -> Any:
        cases = [
            outcome(f"npu_apply_rotary_pos_emb, {n} heads together", fates.get(f"n{n}", Status.OK))
            for n in (72, 80, 128, 200, 208, 248)
        ]
        return findings.forms_of(cases, {}, DUO, True).get("rotary_heads")

    assert heads() == 248
    assert heads(n208=Status.REFUSED) == 200
    assert heads(n208=Status.REFUSED, n128=Status.WRONG) == 80, "what lies behind a failure is not taken"
    assert heads(n72=Status.FAULT) is None


def test_forms_are_fields_of_the_chip_table() -> None:
    facts = {
        "events_per_collective": 2,
        "delta_rule_error_plain_0.0": [1e-3],
        "row_products_us": {"cube": 1, "vector": 9},
    }
    found = findings.forms_of([outcome("uniform_", Status.FAULT)], facts, DUO, True)
    assert found == {
        "device_random": False,
        "compensated_products": True,
        "events_per_collective": 2,
        "batched_row_products": True,
    }
    chips.with_forms(DUO, found, "a probe")
    assert "batched_row_products" not in findings.forms_of([], facts, DUO, False), (
        "an emulated chip's times say nothing"
    )


def test_facts_of_several_cases_are_put_together() -> None:
    found = findings.facts_of(
        [
            outcome("a", Status.OK, facts={"products_us": [[1, 2, 3, 4.0]], "launch_us": 3.0}),
            outcome("b", Status.OK, facts={"products_us": [[5, 6, 7, 8.0]]}),
            outcome("c", Status.WRONG, "int32_sum", facts={"times_its_neighbor": 70.0}),
            outcome("d", Status.OK, facts={"events_of_four_collectives": 9}),
        ]
    )
    assert found == {
        "products_us": [[1, 2, 3, 4.0], [5, 6, 7, 8.0]],
        "launch_us": 3.0,
        "int32_sum_times_its_neighbor": 70.0,
        "events_of_four_collectives": 9,
        "events_per_collective": 3,
    }
