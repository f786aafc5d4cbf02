"""The arithmetic of `ascend bench`, each figure worked out by hand in the line that states it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_cli.bench.audit import NOT_AUDITED, audit
from ascend_cli.bench.compare import compare
from ascend_cli.bench.judge import Slo, _offline_floor_s, goodput, knee, notes_of, roofline_share, saturation
from ascend_cli.bench.results import Latency, Request, Row, Run, Workload, load, percentile, row_from, save
from ascend_cli.bench.summary import figures
from ascend_cli.errors import UsageError
from ascend_facts.attention_shape import CacheLayers
from ascend_facts.chips import find
from ascend_facts.model_shape import ModelShape, Weights
from ascend_facts.roofline import Placement

LOAD = Workload(300, 100, 40, concurrency=4)


def run(speed: float = 200.0, load: Workload = LOAD, **changes: Any) -> Run:
    """40 requests of 300 + 100 tokens at `speed` output tokens a second: 4,000 output tokens, 12,000 input tokens."""
    output = load.prompts * load.output_tokens
    return replace(Run(output / speed, load.prompts, 0, load.prompts * load.input_tokens, output), **changes)


def row(*runs: Run, load: Workload = LOAD, **changes: Any) -> Row:
    return replace(Row("serve", "model", load, runs or (run(load=load),)), **changes)


# ------------------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [
        ([7.0], 99, 7.0),
        ([10.0, 20.0], 50, 15.0),
        ([10.0, 20.0, 40.0], 50, 20.0),
        ([10.0, 20.0, 40.0], 75, 30.0),  # place 1.5: half-way from 20 to 40
        ([0.0, 100.0], 99, 99.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 100, 5.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0, 1.0),
    ],
)
def test_percentiles(values: list[float], percent: float, value: float) -> None:
    assert percentile(values, percent) == pytest.approx(value)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_within_the_values(values: list[float], one: float, other: float) -> None:
    ordered = sorted(values)
    low, high = (percentile(ordered, each) for each in sorted((one, other)))
    assert ordered[0] <= low <= high * (1 + 1e-12) and high <= ordered[-1] * (1 + 1e-12)


def test_a_distribution_is_summed_up() -> None:
    # Mean 25; median half-way from 20 to 30; place 2.97 of the 99th; squares of -15, -5, 5, 15 are 500, over 4: 125.
    found = Latency.of([40.0, 10.0, 30.0, 20.0])
    assert found is not None
    assert (found.mean, found.median) == (25.0, 25.0)
    assert found.p99 == pytest.approx(39.7)
    assert found.std == pytest.approx(math.sqrt(125))
    assert Latency.of([]) is None
    assert Latency(1.0, 2.0, 3.0).std == 0.0


def test_rates_of_a_run() -> None:
    measured = run(200.0)  # 4,000 tokens in 20 s
    assert measured.duration_s == 20.0
    assert measured.requests_per_s == 2.0
    assert measured.output_tokens_per_s == 200.0
    assert measured.total_tokens_per_s == 800.0
    half_a_second = replace(measured, duration_s=0.5)
    assert half_a_second.requests_per_s == 80.0
    nothing = Run.nothing(7)
    assert (nothing.completed, nothing.failed, nothing.input_tokens, nothing.output_tokens) == (0, 7, 0, 0)
    assert nothing.duration_s == 0.0
    assert nothing.requests_per_s == nothing.output_tokens_per_s == nothing.total_tokens_per_s == 0.0
    assert nothing.input_tokens_from == "client"


def test_labels_of_workloads() -> None:
    assert LOAD.label == "300/100 c=4"
    assert Workload(300, 100, 40, request_rate=0.5).label == "300/100 rate=0.5"
    assert Workload(300, 100, 40).label == "300/100 offline"


@pytest.mark.parametrize(
    ("speeds", "warmed_up", "typical", "spread"),
    [
        ([100.0], False, 100.0, 0.0),
        ([93.5, 100.0], False, 100.0, 0.065 / 0.9675),  # 6.5 % slower: not called a warm-up; 6.5 over 96.75
        ([92.5, 100.0], True, 100.0, 0.0),
        ([50.0, 90.0, 110.0], True, 110.0, 0.2),  # of the two that are left the faster; 20 over their median of 100
        ([104.0, 90.0, 110.0, 120.0], False, 110.0, 30 / 107),  # 30 over the median of 107
    ],
)
def test_repetitions(speeds: list[float], warmed_up: bool, typical: float, spread: float) -> None:
    several = row(*map(run, speeds))
    assert several.warmed_up_first is warmed_up
    assert len(several.measured) == len(speeds) - warmed_up
    assert several.typical.output_tokens_per_s == pytest.approx(typical)
    assert several.spread == pytest.approx(spread)


def test_runs_that_gave_nothing_have_no_spread() -> None:
    assert row(Run.nothing(3), Run.nothing(3)).spread == 0.0


def test_what_rows_are_paired_by() -> None:
    assert row(model="/data/Qwen3-0.6B/").point == ("qwen3-0.6b", "serve", 300, 100, 4, None)
    offered = Workload(1, 2, 3, request_rate=0.5)
    assert row(run(load=offered), load=offered, model="a/b").point == ("b", "serve", 1, 2, None, 0.5)
    assert row().size_text == "?"
    assert row(tensor_parallel_size=8).size_text == "8"


GOOD: dict[str, Any] = {
    "kind": "serve",
    "model": "m",
    "workload": {"input_tokens": 1, "output_tokens": 2, "prompts": 3},
    "runs": [{"duration_s": 1.5, "completed": 3, "failed": 0, "input_tokens": 3, "output_tokens": 6}],
}


def test_a_row_is_read_from_its_json() -> None:
    latency = {"mean": 1.0, "median": 2.0, "p99": 3.0}
    request = {
        "start_s": 0.0, "ttft_ms": 1.0, "tpot_ms": 2.0, "latency_ms": 3.0, "input_tokens": 4, "output_tokens": 5,
    }  # fmt: skip
    entry = GOOD | {"runs": [GOOD["runs"][0] | {"ttft_ms": latency, "requests": [request]}], "notes": ["a"]}
    found = row_from(entry)
    assert found.workload == Workload(1, 2, 3)
    assert found.runs[0].ttft_ms == Latency(1.0, 2.0, 3.0)
    assert found.runs[0].requests == (Request(0.0, 1.0, 2.0, 3.0, 4, 5),)
    assert found.notes == ("a",)
    assert row_from(GOOD | {"tensor_parallel_size": 1 << 16}).tensor_parallel_size == 65536


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": 3}, "model"),
        ({"clock": None}, "clock"),
        ({"chip": 3}, "chip"),
        ({"refused": ["x"]}, "refused"),
        ({"settings": {"a": 1}}, "settings"),
        ({"known_by": []}, "known_by"),
        ({"notes": [1]}, "notes"),
        ({"emulated": "no"}, "emulated"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"tensor_parallel_size": (1 << 16) + 1}, "tensor_parallel_size"),
        ({"tensor_parallel_size": True}, "whole"),
        ({"tensor_parallel_size": 1.5}, "whole"),
        ({"runs": []}, "without runs"),
        ({"other": 1, "another": 2}, "another"),
        ({"workload": {"input_tokens": -1, "output_tokens": 2, "prompts": 3}}, "input_tokens"),
        ({"workload": {"input_tokens": True, "output_tokens": 2, "prompts": 3}}, "input_tokens"),
        ({"workload": {"input_tokens": 1e13, "output_tokens": 2, "prompts": 3}}, "input_tokens"),
        ({"runs": [GOOD["runs"][0] | {"duration_s": float("inf")}]}, "duration_s"),
        ({"runs": [GOOD["runs"][0] | {"duration_s": float("nan")}]}, "duration_s"),
        ({"runs": [GOOD["runs"][0] | {"input_tokens_from": 1}]}, "input_tokens_from"),
        ({"runs": [GOOD["runs"][0] | {"itl_ms": {"mean": -1.0, "median": 0.0, "p99": 0.0}}]}, "mean"),
        ({"runs": [GOOD["runs"][0] | {"requests": [dict.fromkeys(
            ("start_s", "ttft_ms", "tpot_ms", "latency_ms", "input_tokens", "output_tokens"), -1)]}]}, "start_s"),
    ],
)  # fmt: skip
def test_rows_of_wrong_kinds_are_refused_by_name(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        row_from(GOOD | changes)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "newer" / "rows.json"
    save([row(notes=("多",))], file)
    assert [each.name for each in file.parent.iterdir()] == ["rows.json"]
    text = file.read_text(encoding="utf-8")
    assert "多" in text and text.endswith("\n") and text.startswith('{\n "schema": "ascend.bench/1"')
    assert load(file.parent) == load(file)
    (file.parent / "sweep.json").write_text("{}")  # what a sweep's points have in common is no result
    assert load(file.parent) == load(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no results"):
        load(tmp_path / "empty")
    with pytest.raises(UsageError, match="cannot be written"):
        save([row()], file / "under a file.json")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------------- judge


def test_objectives_are_read() -> None:
    assert Slo.parse("ttft:500, tpot:60.5,e2el:1e3").limits_ms == (("ttft", 500.0), ("tpot", 60.5), ("e2el", 1000.0))
    assert Slo.parse("ttft:500,tpot:60.5").text == "ttft <= 500 ms, tpot <= 60.5 ms"


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1", "itl:5", "ttft:500;tpot:60"])
def test_objectives_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        Slo.parse(text)


def requests(ttfts_ms: list[float], starts: list[float] | None = None) -> tuple[Request, ...]:
    """Requests a second apart, 20 ms a token, 2,000 ms for the answer after its first token."""
    return tuple(
        Request(starts[index] if starts else float(index), ttft, 20.0, ttft + 2000.0, 300, 100)
        for index, ttft in enumerate(ttfts_ms)
    )


@pytest.mark.parametrize(
    ("objective", "met"), [("ttft:100", 3), ("ttft:99", 2), ("tpot:20", 4), ("tpot:19", 0), ("e2el:2100,ttft:60", 2)]
)
def test_goodput(objective: str, met: int) -> None:
    measured = run(1000.0, requests=requests([50.0, 60.0, 100.0, 200.0]))  # 4 s
    reached = goodput(measured, Slo.parse(objective))
    assert reached is not None
    assert (reached.requests_per_s, reached.share) == (met / 4, met / 4)
    longer = goodput(replace(measured, duration_s=8.0), Slo.parse(objective))
    assert longer is not None and (longer.requests_per_s, longer.share) == (met / 8, met / 4)
    assert goodput(replace(measured, duration_s=0.5), Slo.parse(objective)).requests_per_s == met / 0.5  # type: ignore[union-attr]
    assert goodput(replace(measured, duration_s=0.0), Slo.parse(objective)).requests_per_s == 0.0  # type: ignore[union-attr]


def offered(rate: float, served: float, ttfts_ms: list[float], starts: list[float] | None = None) -> Row:
    """`served` requests a second of `rate` offered."""
    load = Workload(300, 100, 40, request_rate=rate)
    return row(run(served * 100, load, requests=requests(ttfts_ms, starts)), load=load)


def test_saturation_is_a_tenth_less_than_offered() -> None:
    assert saturation(offered(10.0, 9.0, [])) is None
    assert saturation(offered(10.0, 8.9, [])) == "saturated: 10 requests/s offered, 8.90 served"
    assert saturation(row(run(0.001))) is None, "nothing was offered at a rate"


def test_saturation_is_a_wait_that_grows_by_half_and_fifty_milliseconds() -> None:
    def rising(first: float, last: float, count: int = 12) -> str | None:
        middle = [first] * (count - 2 * (count // 3))
        return saturation(offered(2.0, 2.0, [first] * (count // 3) + middle + [last] * (count // 3)))

    assert rising(200, 301) == "saturated: time to first token rose from 200 to 301 ms during the run"
    assert rising(200, 300) is None  # just half more
    assert rising(80, 130) is None  # more than half, but 50 ms
    assert rising(80, 131) is not None
    assert rising(200, 301, 13) is not None
    assert rising(200, 900, 11) is None, "eleven requests say too little"
    # The order is that of the starts, not of the list: the last third here started first.
    backwards = [float(20 - index) for index in range(12)]
    assert saturation(offered(2.0, 2.0, [900.0] * 4 + [500.0] * 4 + [100.0] * 4, backwards)) is not None
    assert saturation(offered(2.0, 2.0, [100.0] * 4 + [500.0] * 4 + [900.0] * 4, backwards)) is None
    # Thirds are means: 100, 100, 100 and 500 are 200, and 300 on average is not more than half more.
    mixed = [100.0, 100.0, 100.0, 500.0, *[0.0] * 4, 250.0, 350.0, 250.0, 350.0]
    assert saturation(offered(2.0, 2.0, mixed)) is None
    assert saturation(offered(2.0, 2.0, [*mixed[:-1], 355.0])) is not None


def at(concurrency: int | None, speed: float, **changes: Any) -> Row:
    load = Workload(300, 100, 40, concurrency)
    return row(run(speed, load) if speed else Run.nothing(40), load=load, **changes)


def test_knees() -> None:
    labels = knee([at(1, 100), at(2, 150), at(4, 157), at(8, 165), at(16, 150)])
    # 157 over 150 is 4.7 % more, below the 5 % that more load must bring; 165 over 157 is 5.1 %; then a tenth is lost.
    assert labels == [
        None, None, "past the knee: +5% throughput over c=2", None, "past the knee: -9% throughput over c=8",
    ]  # fmt: skip
    assert knee([at(2, 100), at(1, 100), at(1, 100)]) == [None, None, None], "less or as much load says nothing"
    assert knee([at(None, 100), at(1, 100)]) == [None, "past the knee: +0% throughput over c=None"]
    assert knee([at(1, 100), at(2, 100, refused="why")]) == [None, None]
    assert knee([at(1, 100, refused="why"), at(2, 100)]) == [None, None]
    assert knee([at(1, 0), at(2, 100)]) == [None, None]
    assert knee([at(None, 100), at(None, 100)]) == [None, None]
    assert knee([]) == []


# One layer of one head of 1 value; 1e9 parameters a token.
ROUND = ModelShape(
    "R", "r", "float16", None, 1, 1, 1, 1, 1, 1, 1, 1, 1000,
    (Weights("mlp", 10**9, 10**9, True, True),), (CacheLayers(1, 1, 2),),
)  # fmt: skip


def test_the_least_time_of_an_offline_run() -> None:
    chip = replace(find("910B3"), fp16_tflops=100.0, bandwidth_gbps=1000.0)
    placement = Placement(ROUND, chip, 1)
    # 512 prompts of 10 + 4 tokens in batches of 256: 512 * 4 / 256 = 8 steps. Operations of a step's 256 tokens:
    # 2 * 1e9 * 256 and 2 * 2 for each of 256 * 12 pairs (at mid-answer); reading 2e9 bytes takes 2 ms, more than
    # either. A prompt has 2e10 operations and its 50 pairs' 200, over 1e14 a second.
    pairs = 256 * 12
    step_ms = max((2e9 + 256 * 12 * 2 * 2) / 1e12, (2e9 * 256 + 4 * pairs) / 1e14) * 1e3
    prompt_s = (2e10 + 4 * 50) / 1e14
    found = _offline_floor_s(placement, Workload(10, 4, 512))
    assert found == pytest.approx(8 * step_ms / 1e3 + 512 * prompt_s, rel=1e-12)
    # Fewer prompts than a batch: 6 prompts, 4 steps of 6.
    step_ms = (2e9 + 6 * 12 * 2 * 2) / 1e12 * 1e3
    assert _offline_floor_s(placement, Workload(10, 4, 6)) == pytest.approx(4 * step_ms / 1e3 + 6 * prompt_s, rel=1e-12)


def real(kind: str = "serve", load: Workload = LOAD, **changes: Any) -> Row:
    """A row of a card of the registry on a chip that is known."""
    known = {"chip": "310P3", "tensor_parallel_size": 1, "weight_format": "fp16", "model": "qwen3-0.6b"}
    times = Latency(50.0, 40.0, 60.0)
    return row(
        run(load=load, ttft_ms=Latency(9.0, 80.0, 100.0), tpot_ms=times), load=load, kind=kind, **known | changes
    )


def test_shares_of_the_roofline_are_floors_over_medians() -> None:
    from ascend_cli.registry.cards import find_model

    placement = Placement(find_model("qwen3-0.6b").shape, find("310P3"), 1, "fp16")
    share = roofline_share(real())
    assert share is not None
    assert share.decode_floor_ms == placement.decode_floor_ms(4, 350)  # 300 and half of 100, four at once
    assert share.decode_share == pytest.approx(share.decode_floor_ms / 40)
    assert share.prefill_floor_ms == placement.prefill_floor_ms(300)
    assert share.prefill_share is None and share.offline_share is None
    alone = roofline_share(real(load=Workload(300, 100, 40, concurrency=1)))
    assert alone is not None and alone.prefill_share == pytest.approx(alone.prefill_floor_ms / 80)
    assert alone.decode_floor_ms == placement.decode_floor_ms(1, 350)
    few = roofline_share(real(load=Workload(300, 100, 3, concurrency=8)))
    assert few is not None and few.decode_floor_ms == placement.decode_floor_ms(3, 350), "three are never eight"
    offline = roofline_share(real("throughput", Workload(300, 100, 40)))
    assert offline is not None
    assert offline.offline_share == pytest.approx(_offline_floor_s(placement, Workload(300, 100, 40)) / 20)
    stopped = real("throughput", Workload(300, 100, 40), runs=(Run.nothing(40),))
    found = roofline_share(stopped)
    assert found is not None and found.offline_share is found.decode_share is found.prefill_share is None


@pytest.mark.parametrize(
    "changes",
    [
        {"chip": None},
        {"chip": "no such chip"},
        {"tensor_parallel_size": None},
        {"weight_format": None},
        {"weight_format": "w2"},
        {"refused": "why"},
        {"emulated": True, "clock": "functional"},
        {"model": "no such model"},
    ],
)
def test_no_share_of_what_is_not_known(changes: dict[str, Any]) -> None:
    assert roofline_share(real(**changes)) is None


def test_a_clock_of_chips_has_a_share_and_the_root_names_the_model() -> None:
    assert roofline_share(real(emulated=True, clock="timing")) is not None
    assert roofline_share(real(emulated=False, clock="functional")) is not None
    assert roofline_share(real(model="mine", settings={"root": "qwen3-0.6b"})) is not None


def test_notes_of_a_row() -> None:
    assert notes_of(row(notes=("own",))) == ["own"]
    assert notes_of(row(known_by={"chip": "flag"}))[0] == NOT_AUDITED
    assert notes_of(row(run(input_tokens_from="server"), known_by={"chip": "flag"})) == []
    assert notes_of(row(kind="throughput", known_by={"chip": "flag"})) == []
    refused = notes_of(row(known_by={"chip": "flag"}, refused="why", notes=("own",)))
    assert refused == ["REFUSED: why", NOT_AUDITED, "own"]
    unknown = row(run(input_tokens_from="server"), known_by={"chip": "unknown", "tensor_parallel_size": "unknown"})
    assert notes_of(unknown) == ["no share of the roofline: give --chip, --tp, which nothing here tells"]
    modeled = notes_of(row(emulated=True, clock="timing"))
    assert modeled == ["emulated chips, timing clock: modelled time"]
    assert notes_of(row(run(50), run(100), run(110))) == [
        "first of 3 runs was warming up and is left out", "2 runs, spread 9.5%",
    ]  # fmt: skip
    assert notes_of(offered(10.0, 5.0, [])) == ["saturated: 10 requests/s offered, 5.00 served"]


def test_columns_of_a_summary() -> None:
    share = roofline_share(real())
    assert share is not None and share.decode_share
    assert figures(real(), None) == [
        "300/100", "4", "2.00", "200.00", "one run", "80.0", "40.00", f"{share.decode_share:.1%}",
    ]  # fmt: skip
    offline = figures(row(run(100), run(104), load=Workload(300, 100, 40)), Slo.parse("ttft:5"))
    assert offline == ["300/100", "offline", "1.04", "104.00", "3.9%", None, None, None, None]
    measured = run(1000.0, requests=requests([50.0, 60.0, 100.0, 200.0]))
    assert figures(row(measured), Slo.parse("ttft:99"))[-1] == "0.50 (50%)"


# ------------------------------------------------------------------------------------------------------ compare


def timed(speed: float, ttft: float, tpot: float, itl99: float) -> Run:
    return run(speed, ttft_ms=Latency(1.0, ttft, 2.0), tpot_ms=Latency(1.0, tpot, 2.0), itl_ms=Latency(1.0, 1.0, itl99))


def test_changes_are_b_over_a() -> None:
    found = compare([row(timed(200, 100, 10, 50))], [row(timed(250, 90, 12, 49))])
    # 3 % is the least that is called a change; more tokens are better, more milliseconds are worse.
    told = [(change.metric, change.a, change.b, change.verdict) for change in found.changes]
    assert told == [
        ("output tok/s", 200.0, 250.0, "better"),
        ("median TTFT ms", 100.0, 90.0, "better"),
        ("median TPOT ms", 10.0, 12.0, "worse"),
        ("p99 ITL ms", 50.0, 49.0, "same"),
    ]
    assert [round(change.ratio, 4) for change in found.changes] == [1.25, 0.9, 1.2, 0.98]
    assert found.has_regression and found.pairs == 1
    assert (found.only_a, found.only_b) == ((), ())
    assert found.caveats == ("single runs have no spread: changes below 3% are called the same",)
    assert found.changes[0].point == "model 300/100 c=4 TP?"


@pytest.mark.parametrize(
    ("speed", "verdict"), [(103.1, "better"), (102.9, "same"), (97.1, "same"), (96.9, "worse"), (100.0, "same")]
)
def test_the_least_change(speed: float, verdict: str) -> None:
    (change,) = compare([row(run(100))], [row(run(speed))]).changes
    assert change.verdict == verdict


def test_a_change_must_exceed_both_spreads() -> None:
    # Spreads of 4 % (100 and 104 about 102: 3.92 %) and 2 % (1.98 %): 5.9 % in all.
    a = row(run(100), run(104))
    (change,) = compare([a], [row(run(109), run(111.2))]).changes  # typical 104 and 111.2: +6.9 %
    assert change.verdict == "better"
    (change,) = compare([a], [row(run(107), run(109.2))]).changes  # +5 %
    assert change.verdict == "same"
    assert not compare([a], [row(run(107), run(109.2))]).caveats


def test_rows_are_paired_once_and_by_size_first() -> None:
    def sized(size: int, speed: float) -> Row:
        return row(run(speed), tensor_parallel_size=size, chip="310P3")

    found = compare([sized(2, 100), sized(1, 100)], [sized(1, 110), sized(2, 120)])
    assert [(change.point[-3:], round(change.b)) for change in found.changes] == [("TP2", 120), ("TP1", 110)]
    other = compare([sized(1, 100)], [sized(4, 300)])
    assert other.changes[0].point == "model 300/100 c=4 TP1 -> TP4"
    assert "different tensor-parallel sizes: 1 and 4" in other.caveats
    twice = compare([sized(1, 100), sized(1, 100)], [sized(1, 110)])
    assert (len(twice.changes), twice.only_a, twice.pairs) == (1, ("model 300/100 c=4 TP1",), 1)
    assert compare([], [sized(1, 110)]).only_b == ("model 300/100 c=4 TP1",)


def test_what_is_not_comparable_has_no_verdict() -> None:
    def verdicts(a: Row, b: Row) -> tuple[list[str], str]:
        found = compare([a], [b])
        return [change.verdict for change in found.changes], " ".join(found.caveats)

    assert verdicts(row(emulated=True), row())[0] == ["unknown"]
    assert verdicts(row(emulated=True), row(emulated=True))[0] == ["same"]
    words, caveats = verdicts(row(refused="why"), row())
    assert words == ["unknown"] and "model 300/100 c=4 TP? was refused (why)" in caveats
    assert verdicts(row(), row(refused="why"))[0] == ["unknown"]
    assert verdicts(row(Run.nothing(40)), row())[0] == [], "nothing over nothing is no ratio"
    assert "different chips: 310P3 and unknown" in verdicts(row(chip="310P3"), row())[1]


# -------------------------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize(
    ("tokens", "is_chat", "passes"),
    [
        (11760, False, True),  # 2 % below 12,000
        (11759, False, False),
        (12280, False, True),  # 2 % above and one token for each of 40 prompts
        (12281, False, False),
        (12240 + 40 * 96, True, True),  # and a chat template
        (12241 + 40 * 96, True, False),
    ],
)
def test_input_tokens_within_two_percent(tokens: int, is_chat: bool, passes: bool) -> None:
    assert (audit(LOAD, run(input_tokens=tokens), is_chat) is None) is passes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_tokens": 40 * 1024}, "1,024 input tokens a prompt were processed, 300 were asked for: vLLM used"),
        ({"input_tokens": 40 * 1044}, "vLLM used --random-input-len"),
        ({"input_tokens": 40 * 1045}, "a longer chat template"),
        ({"input_tokens": 40 * 1003}, "a longer chat template"),
        ({"input_tokens": 40 * 200}, "200 input tokens a prompt were processed, 300 were asked for: prompts were cut"),
        ({"output_tokens": 3999}, "100.0 output tokens an answer were generated, 100 were asked for: answers ended"),
        ({"output_tokens": 4010}, "100.2 output tokens an answer were generated, 100 were asked for: the server"),
        ({"completed": 39}, "39 of 40 requests completed, 0 failed"),
        ({"failed": 1}, "40 of 40 requests completed, 1 failed"),
    ],
)
def test_refusals_name_the_figures_and_the_cause(changes: dict[str, int], says: str) -> None:
    assert says in (audit(LOAD, run(**changes), is_chat=False) or "")
