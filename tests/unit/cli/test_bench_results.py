"""Results as data: the published figures, the token audit, spread, saturation, goodput, comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ascend_cli.bench import sources
from ascend_cli.bench.audit import audit
from ascend_cli.bench.compare import compare
from ascend_cli.bench.judge import Slo, goodput, knee, notes_of, roofline_share, saturation
from ascend_cli.bench.published import published_rows
from ascend_cli.bench.results import SCHEMA, Latency, Request, Row, Run, Workload, load, save
from ascend_cli.bench.table import row_table, serving_table, throughput_table
from ascend_cli.errors import UsageError

from .conftest import Ascend

WORKLOAD = Workload(256, 128, 20, concurrency=1)


def run(
    speed: float = 100.0, *, workload: Workload = WORKLOAD, tpot_ms: float = 10.0, requests: tuple[Request, ...] = ()
) -> Run:
    """A run that generated `speed` output tokens a second."""
    output = workload.prompts * workload.output_tokens
    latency = Latency(tpot_ms, tpot_ms, 2 * tpot_ms)
    return Run(
        output / speed,
        workload.prompts,
        0,
        workload.prompts * workload.input_tokens,
        output,
        latency,
        latency,
        latency,
        requests=requests,
    )


def row(*runs: Run, workload: Workload = WORKLOAD, **changes: object) -> Row:
    return replace(
        Row(
            "serve",
            "qwen3-0.6b",
            workload,
            runs or (run(),),
            chip="310P3",
            tensor_parallel_size=4,
            weight_format="fp16",
        ),
        **changes,
    )


# -------------------------------------------------------------------------- published Atlas 300I Duo figures

PUBLISHED_TABLE = """============ Serving Benchmark Result ============
Successful requests:                     20
Failed requests:                         0
Maximum request concurrency:             1
Benchmark duration (s):                  155.71
Total input tokens:                      5120
Total generated tokens:                  2560
Request throughput (req/s):              0.13
Output token throughput (tok/s):         16.44
Peak output token throughput (tok/s):    18.00
Peak concurrent requests:                2.00
Total token throughput (tok/s):          49.32
---------------Time to First Token----------------
Mean TTFT (ms):                          123.72
Median TTFT (ms):                        88.58
P99 TTFT (ms):                           656.70
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          60.33
Median TPOT (ms):                        58.51
P99 TPOT (ms):                           85.91
---------------Inter-token Latency----------------
Mean ITL (ms):                           59.85
Median ITL (ms):                         58.04
P99 ITL (ms):                            149.20"""


def test_the_published_table_is_printed_line_for_line() -> None:
    printed = [line.rstrip() for line in serving_table(published_rows()[0]).splitlines()]
    page = PUBLISHED_TABLE.splitlines()
    assert printed[: len(page)] == page


def test_the_published_offline_figures() -> None:
    small, _, large = [one for one in published_rows() if one.kind == "throughput"]
    text = throughput_table(small)
    assert "1.84 requests/s" in text and "236.06 output tokens/s  (warming up, left out)" in text
    assert "2.16 requests/s" in text and "Total num prompt tokens:  204800" in text
    assert small.warmed_up_first and not large.warmed_up_first
    assert len(small.measured) == 2


@pytest.mark.parametrize(("index", "share"), [(0, 0.025), (2, 0.61)])
def test_the_published_share_of_the_roofline(index: int, share: float) -> None:
    reached = roofline_share(published_rows()[index])
    assert reached is not None
    assert reached.decode_share == pytest.approx(share, abs=0.005)


# --------------------------------------------------------------------------------------------------- the audit


def test_a_run_that_measured_what_was_asked_passes() -> None:
    assert audit(WORKLOAD, run(), is_chat=False) is None
    assert audit(WORKLOAD, replace(run(), input_tokens=20 * (256 + 30)), is_chat=True) is None, (
        "a chat template adds tokens"
    )


def test_the_published_mistake_is_refused_with_its_cause() -> None:
    """--input-len 256 --num-prompts 200, and 204,800 prompt tokens were processed."""
    workload = Workload(256, 128, 200)
    measured = Run(92.6, 200, 0, 204_800, 25_600)
    refused = audit(workload, measured, is_chat=False)
    assert refused is not None
    assert "1,024 input tokens a prompt were processed, 256 were asked for" in refused
    assert "--random-input-len" in refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_tokens": 20 * 200}, "prompts were cut"),
        ({"input_tokens": 20 * 700}, "longer chat template"),
        ({"output_tokens": 20 * 90}, "answers ended early"),
        ({"output_tokens": 20 * 256}, "more than one answer"),
        ({"completed": 18, "failed": 2}, "2 failed"),
    ],
)
def test_other_mistakes_are_refused(changes: dict[str, int], says: str) -> None:
    refused = audit(WORKLOAD, replace(run(), **changes), is_chat=True)
    assert refused is not None
    assert says in refused


# ------------------------------------------------------------------------------------- repetitions and judgement


def test_warm_up_is_left_out_and_spread_is_of_the_rest() -> None:
    three = row(run(80), run(100), run(104))
    assert three.warmed_up_first
    assert three.spread == pytest.approx(4 / 102)
    assert any("warming up" in note for note in notes_of(three))
    steady = row(run(99), run(100))
    assert not steady.warmed_up_first


def requests(ttfts_ms: list[float], tpot_ms: float = 10.0) -> tuple[Request, ...]:
    return tuple(
        Request(float(index), ttft, tpot_ms, ttft + 127 * tpot_ms, 256, 128) for index, ttft in enumerate(ttfts_ms)
    )


def test_saturation_by_rate_and_by_a_growing_queue() -> None:
    offered = Workload(256, 128, 20, request_rate=10.0)
    slow = row(run(100, workload=offered), workload=offered)  # 0.78 requests/s served of 10
    assert "10 requests/s offered, 0.78 served" in (saturation(slow) or "")
    rate = Workload(256, 128, 20, request_rate=0.8)
    growing = row(run(100, workload=rate, requests=requests([50.0 + 40 * index for index in range(20)])), workload=rate)
    assert "rose from" in (saturation(growing) or "")
    steady = row(run(100, workload=rate, requests=requests([50.0] * 20)), workload=rate)
    assert saturation(steady) is None


def test_knee_of_a_sweep() -> None:
    def at(concurrency: int, speed: float) -> Row:
        workload = Workload(256, 128, 20, concurrency)
        return row(run(speed, workload=workload), workload=workload)

    labels = knee([at(1, 100), at(2, 190), at(4, 195)])
    assert labels[:2] == [None, None]
    assert "past the knee" in (labels[2] or "")


def test_goodput_counts_requests_within_every_limit() -> None:
    mixed = run(128.0, requests=requests([100.0] * 15 + [900.0] * 5))
    reached = goodput(mixed, Slo.parse("ttft:500,tpot:60"))
    assert reached is not None
    assert reached.share == 0.75
    assert reached.requests_per_s == pytest.approx(15 / 20)
    assert goodput(mixed, Slo.parse("tpot:5")).share == 0.0
    assert goodput(run(), Slo.parse("ttft:500")) is None


def test_emulated_rows_say_so() -> None:
    text = row_table(row(emulated=True, clock="functional"))
    assert "emulated chips, functional clock" in text
    assert "Share of the roofline" not in text, "a CPU's time against a chip's floor says nothing"
    assert "Share of the roofline" in row_table(row(emulated=True, clock="timing"))


# ------------------------------------------------------------------------------------------------------- files


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [*published_rows(), row(run(100, requests=requests([50.0] * 20)))]
    save(rows, tmp_path / "rows.json")
    assert load(tmp_path / "rows.json") == rows
    assert load(tmp_path) == rows


def test_another_schema_version_is_refused(tmp_path: Path, ascend: Ascend) -> None:
    save(published_rows(), tmp_path / "rows.json")
    document = json.loads((tmp_path / "rows.json").read_text())
    (tmp_path / "rows.json").write_text(json.dumps(document | {"schema": "ascend.bench/0"}))
    answer = ascend("bench", "report", tmp_path / "rows.json")
    assert answer.code == 2
    assert "'ascend.bench/0'" in answer.error_line and "run the benchmark again" in answer.error_line


@pytest.mark.parametrize("text", ["not json", "[]", '{"schema": "ascend.bench/1", "rows": [{"kind": "serve"}]}'])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(UsageError):
        load(tmp_path / "rows.json")


# -------------------------------------------------------------------------------------------------- comparison


def test_changes_within_the_spread_are_the_same() -> None:
    a = row(run(104), run(110))  # 5.6 % spread
    b = row(run(101), run(104))
    verdicts = {change.metric: change.verdict for change in compare([a], [b]).changes}
    assert verdicts["output tok/s"] == "same"


def test_regressions_and_gains_are_named() -> None:
    faster = compare([row(run(100, tpot_ms=10))], [row(run(150, tpot_ms=6))])
    assert {change.verdict for change in faster.changes} == {"better"}
    assert not faster.has_regression
    slower = compare([row(run(100))], [row(run(50))])
    assert slower.has_regression


def test_what_cannot_be_compared_is_said() -> None:
    other = Workload(512, 128, 20, 1)
    found = compare([row()], [row(run(workload=other), workload=other)])
    assert (found.changes, len(found.only_a), len(found.only_b)) == ((), 1, 1)
    emulated = compare([row()], [row(emulated=True)])
    assert any("means nothing for hardware" in line for line in emulated.caveats)


def test_compare_with_the_published_figures(ascend: Ascend, tmp_path: Path) -> None:
    mine = [
        replace(one, runs=tuple(replace(run, duration_s=run.duration_s / 2) for run in one.runs))
        for one in published_rows()
    ]
    save(mine, tmp_path / "mine.json")
    better = ascend("bench", "compare", "atlas-300i-duo", tmp_path / "mine.json")
    assert better.code == 0
    assert "better" in better.out
    worse = ascend("bench", "compare", tmp_path / "mine.json", "atlas-300i-duo", "--json")
    assert worse.code == 1
    assert any(change["verdict"] == "worse" for change in worse.json["comparison"]["changes"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_results_file_however_spoiled_is_a_traceback(ascend: Ascend, tmp_path: Path, data: st.DataObject) -> None:
    """One value anywhere in a good file exchanged for another kind: compared and reported, or refused in a line."""
    document = json.loads(json.dumps({"schema": SCHEMA, "rows": [asdict(row())]}))
    places = list(_places(document))
    *path, last = data.draw(st.sampled_from(places))
    inner: Any = document
    for step in path:
        inner = inner[step]
    odd = st.sampled_from([None, "x", -1, 0, 1e400, True, [], {}, [1], {"a": 1}, 2**70])
    inner[last] = data.draw(odd)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(document))
    for command in (
        ["bench", "compare", file, "atlas-300i-duo", "--json"],
        ["bench", "report", file, "-o", tmp_path / "r"],
    ):
        answer = ascend(*command)
        assert answer.code in (0, 1, 2)
        if answer.code == 2:
            assert answer.error_line


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        if not isinstance(value, tuple):
            yield (*path, key)
        yield from _places(inner, (*path, key))


PRINTED = """
INFO something before
============ Serving Benchmark Result ============
Successful requests:                     20
Failed requests:                         0
Maximum request concurrency:             1
Benchmark duration (s):                  334.72
Total input tokens:                      5120
Total generated tokens:                  2560
Request throughput (req/s):              0.06
Output token throughput (tok/s):         7.65
---------------Time to First Token----------------
Mean TTFT (ms):                          328.02
Median TTFT (ms):                        293.29
P99 TTFT (ms):                           852.37
==================================================
"""


def test_a_table_that_vllm_printed_is_compared(ascend: Ascend, tmp_path: Path) -> None:
    """The published table of Qwen3-32B, saved as text under the model's name, is the same point as the data set's."""
    file = tmp_path / "qwen3-32b.txt"
    file.write_text(PRINTED)
    (found,) = sources.load(file)
    assert (found.workload.input_tokens, found.workload.output_tokens, found.workload.concurrency) == (256, 128, 1)
    assert found.chip is None and found.tensor_parallel_size is None
    answer = ascend("bench", "compare", "atlas-300i-duo", file, "--json")
    assert answer.code == 0
    changes = answer.json["comparison"]["changes"]
    assert {change["metric"]: change["verdict"] for change in changes}["output tok/s"] == "same"
    assert ascend("bench", "report", file, "-o", tmp_path / "report").code == 0


def test_a_result_file_of_vllm_is_a_row(tmp_path: Path) -> None:
    document = {"duration": 10.0, "completed": 20, "total_input_tokens": 5120, "total_output_tokens": 2560}
    document |= {"model_id": "Qwen/Qwen3-0.6B", "num_prompts": 20, "max_concurrency": 8, "request_rate": "inf"}
    for name in ("ttft", "tpot"):
        document |= {f"{statistic}_{name}_ms": 5.0 for statistic in ("mean", "median", "p99")}
    file = tmp_path / "vllm.json"
    file.write_text(json.dumps(document))
    (found,) = sources.load(file)
    assert found.point[:2] == ("qwen3-0.6b", "serve") and found.workload.concurrency == 8
    file.write_text(json.dumps(document | {"duration": "x"}))
    with pytest.raises(UsageError, match="cannot be read"):
        sources.load(file)
    cut = tmp_path / "cut.txt"
    cut.write_text(PRINTED.split("Total input")[0])
    with pytest.raises(UsageError, match="lacks"):
        sources.load(cut)
