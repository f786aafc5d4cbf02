"""What `ascend bench` reads and draws: metrics, sweeps, results of vLLM, charts; figures worked out by hand."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_cli.bench import svg
from ascend_cli.bench.foreign import rows_of, vllm
from ascend_cli.bench.foreign.row import Spoiled
from ascend_cli.bench.metrics import Metrics
from ascend_cli.bench.results import Latency, Request, Workload
from ascend_cli.bench.sweep import Grid, Setting, parse_numbers, parse_settings, point_file
from ascend_cli.bench.vllm_bench import parse_serve, parse_throughput, serve_command, throughput_command, with_p99
from ascend_cli.errors import AscendError, UsageError
from ascend_cli.top.sample import Sample, rates

# ------------------------------------------------------------------------------------------------------ metrics

METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_running{engine="10",model_name="m"} 4
vllm:num_requests_running{engine="2",model_name="m"} 5
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="2"} 0.25
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",reason="stop"} 6
vllm:request_success_total{engine="0",reason="length"} 7
# TYPE process_open_fds gauge
process_open_fds 9
"""


def test_samples_are_kept_by_engine() -> None:
    found = Metrics.parse(METRICS)
    assert found.engines == ["0", "2", "10"]
    assert found.total("vllm:num_requests_running") == 12.0
    assert found.of("vllm:num_requests_running", "2") == 5.0
    assert found.share("vllm:kv_cache_usage_perc") == 0.375, "a share is a mean, never a sum"
    assert found.total("vllm:request_success_total") == 13.0, "other labels are summed"
    assert found.of("process_open_fds", "0") == 9.0
    assert found.of("none", "0") == found.total("none") == found.share("none") == 0.0
    assert found.of("vllm:kv_cache_usage_perc", "10") == 0.0
    assert found.has(["process_open_fds", "vllm:kv_cache_usage_perc"]) and not found.has(["process_open_fds", "none"])


@given(st.text())
def test_no_text_is_more_than_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        Metrics.parse(text)


def looked(time_s: float, **counters: float) -> Sample:
    return Sample(time_s, (), None, True, True, counters=counters)


def test_rates_between_two_looks() -> None:
    first = looked(10.0, generated=100, prompt=1000, ttft_sum=1.0, ttft_count=4, tpot_sum=2.0, tpot_count=100)
    second = looked(14.0, generated=180, prompt=1200, ttft_sum=1.5, ttft_count=14, tpot_sum=6.0, tpot_count=180)
    # 80 and 200 tokens in 4 s; 0.5 s over 10 first tokens, 4 s over 80 others.
    assert rates(first, second) == {
        "generated_tokens_per_s": 20.0, "prompt_tokens_per_s": 50.0, "ttft_ms": 50.0, "tpot_ms": 50.0,
    }  # fmt: skip
    idle = rates(second, looked(15.0, **second.counters))
    assert idle == {"generated_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0, "ttft_ms": None, "tpot_ms": None}
    assert rates(second, looked(16.0))["generated_tokens_per_s"] == 0.0, "a server that started again counts from 0"
    assert math.isfinite(rates(first, looked(10.0, generated=101))["generated_tokens_per_s"] or 0.0)


# ------------------------------------------------------------------------------------------------------- sweeps


@pytest.mark.parametrize(
    ("text", "numbers"), [("1,2,4", [1, 2, 4]), ("1-4", [1, 2, 3, 4]), (" 7 , 2-3", [7, 2, 3]), ("5-5", [5])]
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text, "--concurrency") == numbers


@pytest.mark.parametrize("text", ["", "0", "4-1", "0-3", "1,,2", "1-", "-1", "1.5", "a", "1-2-3"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--concurrency"):
        parse_numbers(text, "--concurrency")


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), min_size=1, max_size=5))
def test_lists_are_read_as_written(parts: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in parts)
    assert parse_numbers(text, "x") == [first + index for first, more in parts for index in range(more + 1)]


def test_settings_are_combined_the_last_fastest() -> None:
    found = parse_settings(["--tensor_parallel-size=1, 2", "async-scheduling=true,false", "dtype=float16"])
    assert [one.label for one in found] == [
        "tensor-parallel-size=1,async-scheduling=true,dtype=float16",
        "tensor-parallel-size=1,async-scheduling=false,dtype=float16",
        "tensor-parallel-size=2,async-scheduling=true,dtype=float16",
        "tensor-parallel-size=2,async-scheduling=false,dtype=float16",
    ]
    assert found[0].flags == ["--tensor-parallel-size", "1", "--async-scheduling", "--dtype", "float16"]
    assert found[3].flags == ["--tensor-parallel-size", "2", "--no-async-scheduling", "--dtype", "float16"]
    assert [one.tensor_parallel_size for one in found] == [1, 1, 2, 2]
    assert (Setting().label, Setting().flags, Setting().tensor_parallel_size) == ("default", [], None)
    for size in ("0", "x", "²", "-1", ""):
        assert Setting((("tensor-parallel-size", size),)).tensor_parallel_size is None
    assert parse_settings([]) == [Setting()]


@pytest.mark.parametrize("text", ["", "a", "a=", "=1", "A=1", "1a=1", "a b=1"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_settings([text])


def test_points_of_a_grid() -> None:
    grid = Grid([Setting(), Setting((("a", "1"),))], [10, 20], [5, 6, 7], [1, 8], 3)
    assert grid.size == 24
    loads = list(grid.workloads())
    assert len(loads) == 12
    assert loads[0] == Workload(10, 5, 4, 1), "three prompts for one at once are too few: four"
    assert loads[1] == Workload(10, 5, 24, 8)
    assert loads[2] == Workload(10, 6, 4, 1) and loads[-1] == Workload(20, 7, 24, 8)


def test_files_of_points_differ_where_points_do() -> None:
    folder = Path("x")
    one = point_file(folder, Setting((("a", "b/c d"),)), Workload(10, 5, 4, 1))
    assert re.fullmatch(r"a=b_c_d_in10_out5_c1_[0-9a-f]{8}\.json", one.name)
    assert one != point_file(folder, Setting((("a", "b/c_d"),)), Workload(10, 5, 4, 1))
    assert one != point_file(folder, Setting((("a", "b/c d"),)), Workload(10, 5, 8, 1))
    long = point_file(folder, Setting((("a", "b" * 200),)), Workload(10, 5, 4, 1))
    assert long.name.startswith("a=" + "b" * 58 + "_in10")


# ---------------------------------------------------------------------------------------- vLLM's own benchmark


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], []),
        (["--metric-percentiles", "50,90"], ["--metric-percentiles", "50,90,99"]),
        (["--metric_percentiles=50"], ["--metric_percentiles=50,99"]),
        (["--metric-percentiles=50,99"], ["--metric-percentiles=50,99"]),
        (["--metric-percentiles", "99"], ["--metric-percentiles", "99"]),
        (["--metric-percentiles"], ["--metric-percentiles"]),
        (["--metric-percentiles", "999"], ["--metric-percentiles", "999,99"]),
        (["--other", "50"], ["--other", "50"]),
    ],
)
def test_the_99th_percentile_is_always_asked_for(flags: list[str], words: list[str]) -> None:
    assert with_p99(flags) == words


def value_after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_commands_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ascend_cli.bench.vllm_bench.vllm_command", lambda: "vllm")
    target = {"url": "http://x", "model": "m", "tokenizer": "t"}
    chat = serve_command(target, Workload(10, 5, 4, 2, 0.5), Path("/o/r.json"), 3, 7, True, ["--x"])
    wanted = {
        "--base-url": "http://x", "--model": "m", "--tokenizer": "t", "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions", "--random-input-len": "10", "--random-output-len": "5",
        "--random-range-ratio": "0", "--num-prompts": "4", "--num-warmups": "3", "--seed": "7", "--result-dir": "/o",
        "--result-filename": "r.json", "--temperature": "0", "--max-concurrency": "2", "--request-rate": "0.5",
    }  # fmt: skip
    assert {option: value_after(chat, option) for option in wanted} == wanted
    assert chat[:3] == ["vllm", "bench", "serve"] and chat[-1] == "--x"
    assert {"--ignore-eos", "--save-result", "--save-detailed"} <= set(chat)
    plain = serve_command(target, Workload(10, 5, 4), Path("/o/r.json"), 0, 0, False, [])
    assert value_after(plain, "--backend") == "openai" and value_after(plain, "--endpoint") == "/v1/completions"
    assert not {"--max-concurrency", "--request-rate"} & set(plain)
    offline = throughput_command("m", Workload(10, 5, 4), Path("/o/r.json"), ["--y"])
    assert offline[:3] == ["vllm", "bench", "throughput"] and offline[-1] == "--y"
    wanted = {
        "--model": "m", "--random-input-len": "10", "--random-output-len": "5", "--num-prompts": "4",
        "--output-json": "/o/r.json", "--random-range-ratio": "0", "--dataset-name": "random",
    }  # fmt: skip
    assert {option: value_after(offline, option) for option in wanted} == wanted


PRINTED = "Total num prompt tokens:  1200\nTotal num output tokens:  400\n"


def test_offline_totals() -> None:
    found = parse_throughput({"elapsed_time": 2.5, "num_requests": 4}, PRINTED)
    assert (found.duration_s, found.completed, found.failed) == (2.5, 4, 0)
    assert (found.input_tokens, found.output_tokens, found.input_tokens_from) == (1200, 400, "engine")
    for document, printed in (
        ({"elapsed_time": 2.5, "num_requests": 4}, "Total num prompt tokens:  1200"),
        ({"elapsed_time": 2.5, "num_requests": 4}, "Total num output tokens:  1200"),
        ({"elapsed_time": 2.5}, PRINTED),
        ({"elapsed_time": "x", "num_requests": 4}, PRINTED),
    ):
        with pytest.raises(AscendError):
            parse_throughput(document, printed)


SERVED: dict[str, Any] = {
    "duration": 8.0, "completed": 3, "failed": 1, "total_input_tokens": 30, "total_output_tokens": 12,
    "mean_ttft_ms": 1.0, "median_ttft_ms": 2.0, "p99_ttft_ms": 3.0, "std_ttft_ms": 4.0,
    "mean_tpot_ms": 5.0, "median_tpot_ms": 6.0, "p99_tpot_ms": 7.0,
    "max_output_tokens_per_s": 9.0, "max_concurrent_requests": 2,
    "start_times": [103.0, 100.0, 101.0, 102.0, 104.0], "ttfts": [0.5, 0.25, 0.1, 0.1, 0.1],
    "itls": [[0.01, 0.03], [0.02], [0.5], [], []], "input_lens": [10, 11, 12, 13, 14],
    "output_lens": [3, 2, 5, 1, 0], "errors": ["", "", "gone", "", ""],
}  # fmt: skip


def test_a_served_run_is_read() -> None:
    found = parse_serve(SERVED)
    assert (found.duration_s, found.completed, found.failed) == (8.0, 3, 1)
    assert (found.input_tokens, found.output_tokens) == (30, 12)
    assert found.ttft_ms == Latency(1.0, 2.0, 3.0, 4.0)
    assert found.tpot_ms == Latency(5.0, 6.0, 7.0, 0.0)
    assert found.itl_ms is None
    assert (found.peak_output_tokens_per_s, found.peak_concurrency) == (9.0, 2)
    # Starts from the first; 40 ms over the two tokens after the first; what failed or said nothing is left out.
    assert len(found.requests) == 3
    first, second, third = found.requests
    assert first == Request(3.0, 500.0, pytest.approx(20.0), pytest.approx(540.0), 10, 3)
    assert second == Request(0.0, 250.0, pytest.approx(20.0), pytest.approx(270.0), 11, 2)
    assert third == Request(2.0, 100.0, 0.0, pytest.approx(100.0), 13, 1)
    bare = {name: SERVED[name] for name in ("duration", "completed", "total_input_tokens", "total_output_tokens")}
    assert parse_serve(bare).requests == () and parse_serve(bare).failed == 0 and parse_serve(bare).ttft_ms is None


@pytest.mark.parametrize(
    "changes", [{"duration": None}, {"completed": "x"}, {"median_ttft_ms": None}, {"itls": [["a"]]}, {"itls": 3}]
)
def test_a_spoiled_run_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AscendError, match="lacks or spoils"):
        parse_serve(SERVED | changes)


TABLE = """============ Serving Benchmark Result ============
Successful requests:                     4
Failed requests:                         1
Maximum request concurrency:             2
Benchmark duration (s):                  8.50
Total input tokens:                      1030
Total generated tokens:                  403
Peak output token throughput (tok/s):    18.00
Peak concurrent requests:                3.00
---------------Time to First Token----------------
Mean TTFT (ms):                          1.00
Median TTFT (ms):                        2.00
P99 TTFT (ms):                           3.00
---------------Inter-token Latency----------------
Mean ITL (ms):                           4.00
Median ITL (ms):                         5.00
P99 ITL (ms):                            6.00
==================================================
"""


def test_a_printed_table_is_read() -> None:
    offered = TABLE.replace("Maximum request concurrency:             2", "Request rate configured (RPS):  0.50")
    text = "before\n" + TABLE + "Successful requests:  99\n" + offered
    first, second = vllm.rows_of_text(text, Path("/d/name.txt"))
    run = first.runs[0]
    assert (first.model, first.kind, first.clock) == ("name", "serve", "unknown")
    # 1,030 over 4 is 257.5, to even 258; 403 over 4 is 100.75.
    assert first.workload == Workload(258, 101, 5, 2, None)
    assert (run.duration_s, run.completed, run.failed, run.input_tokens, run.output_tokens) == (8.5, 4, 1, 1030, 403)
    assert run.ttft_ms == Latency(1.0, 2.0, 3.0) and run.itl_ms == Latency(4.0, 5.0, 6.0) and run.tpot_ms is None
    assert (run.peak_output_tokens_per_s, run.peak_concurrency) == (18.0, 3.0)
    assert first.refused == "4 of 5 requests completed"
    assert second.workload == Workload(258, 101, 5, None, 0.5)
    assert set(first.known_by.values()) == {"unknown"}
    for lacking in ("Benchmark duration (s)", "Total input tokens"):
        with pytest.raises(Spoiled, match=re.escape(lacking)):
            vllm.rows_of_text(TABLE.replace(lacking, "Something"), Path("name.txt"))


def test_json_of_vllm_is_read(tmp_path: Path) -> None:
    def row(**changes: Any) -> Any:
        (found,) = vllm.rows_of(SERVED | changes, Path("f.json"))
        return found

    found = row(num_prompts=4, request_rate="inf", max_concurrency=2)
    assert found.workload == Workload(10, 4, 4, 2, None) and found.model == "f"
    assert found.refused == "3 of 4 requests completed"
    rated = row(failed=0, request_rate=2, model_id="m", date="d")
    assert rated.workload == Workload(10, 4, 3, None, 2.0) and rated.refused is None
    assert (rated.model, rated.created) == ("m", "d")
    nothing = row(completed=0, failed=0)
    assert nothing.workload.prompts == 1 and nothing.workload.input_tokens == 30
    with pytest.raises(Spoiled, match="request_rate"):
        row(request_rate="x")
    file = tmp_path / "a.json"
    file.write_text(json.dumps(SERVED))
    assert len(rows_of(file) or []) == 1
    file.write_text("{}")
    assert rows_of(file) is None
    file.write_text("neither")
    assert not rows_of(file)
    assert rows_of(tmp_path / "none") is None
    file.write_text(TABLE)
    assert len(rows_of(file) or []) == 1


# ------------------------------------------------------------------------------------------------------- charts


@pytest.mark.parametrize(
    ("low", "high", "wanted", "marks"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0, 11, 5, [0, 2.5, 5, 7.5, 10, 12.5]),
        (0, 100, 2, [0, 50, 100]),
        (0, 4, 5, [0, 1, 2, 3, 4]),
        (3, 7, 4, [3, 4, 5, 6, 7]),
        (0, 0, 5, [0, 0.2]),
        (5, 5, 5, [5, 6]),
        (0, 0.3, 5, [0, 0.1, 0.2, 0.3]),
        (0, 45, 5, [0, 10, 20, 30, 40, 50]),
        (-3, 3, 5, [-4, -2, 0, 2, 4]),
    ],
)
def test_marks_of_an_axis(low: float, high: float, wanted: int, marks: list[float]) -> None:
    assert svg.ticks(low, high, wanted) == marks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_marks_cover_what_is_drawn(low: float, span: float) -> None:
    marks = svg.ticks(low, low + span)
    assert marks[0] <= low + 1e-6 and marks[-1] >= low + span - 1e-6 and 2 <= len(marks) <= 8
    assert marks == sorted(marks)


@pytest.mark.parametrize(
    ("low", "high", "marks"), [(1, 10, [1, 2, 5, 10]), (3, 40, [2, 5, 10, 20, 50]), (0.15, 0.9, [0.1, 0.2, 0.5, 1])]
)
def test_marks_of_a_logarithmic_axis(low: float, high: float, marks: list[float]) -> None:
    assert svg._log_ticks(low, high) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999.4, "999"), (1000, "1,000"), (12345.6, "12,346"), (-1500, "-1,500"), (0.5, "0.5")]
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert svg.number(value) == text


def test_places_of_values() -> None:
    # The plot is 340 - 16 - 52 = 272 high and begins 16 below the top.
    assert svg._y(0, [0, 10]) == 288.0
    assert svg._y(10, [0, 10]) == 16.0
    assert svg._y(2.5, [0, 10]) == 220.0
    assert svg._y(30, [20, 40]) == 152.0
    assert svg._y(10, [1, 100], is_log=True) == pytest.approx(152.0)
    assert svg._y(1, [1, 1], is_log=True) == 288.0


def test_points_of_lines() -> None:
    text = svg.line_chart(
        "t", [svg.Series("a", ((0.0, 0.0), (10.0, 20.0)), ("first", "last")), svg.Series("none", ())], "x", "y"
    )
    # Marks of x reach 12.5 (of 10.5 and 5 steps of 2.5), those of y 25; the plot is 554 wide from 68 on.
    assert f'points="68.0,288.0 {68 + 554 * 0.8:.1f},{16 + 272 * 0.2:.1f}"' in text
    assert f'x="{68 + 554 * 0.8 + 8:.1f}" y="{16 + 272 * 0.2 - 7:.1f}" text-anchor="start" class="label">last' in text
    categories = svg.line_chart("t", [svg.Series("a", ((1.0, 1.0), (8.0, 1.0)))], "x", "y", category_x=True)
    assert f'cx="{68 + 554 / 4:.1f}"' in categories and f'cx="{68 + 554 * 3 / 4:.1f}"' in categories
    single = svg.line_chart("t", [svg.Series("a", ((1.0, 1.0),), ("edge",))], "x", "y")
    assert "polyline" not in single
    assert svg.line_chart("t", [svg.Series("a", ())], "x", "y") == ""
    edge = svg.line_chart("t", [svg.Series("a", ((1.0, 1.0), (2.0, 1.0), (10.0, 1.0)), ("", "", "edge"))], "x", "y")
    assert 'text-anchor="start" class="label">edge' in edge, "x of 511.2 is not near the right"
    near = svg.line_chart("t", [svg.Series("a", ((9.5, 1.0),), ("edge",))], "x", "y")
    assert 'text-anchor="end" class="label">edge' in near, "9.5 of 10 is"


def test_bars_stand_side_by_side_around_the_middle_of_their_group() -> None:
    text = svg.bar_chart("t", ["g", "h"], [("a", [10.0, None]), ("b", [5.0, 20.0])], "y", "x")
    # Two slots of 277; bars of at most 46; marks of y up to 25 (21 in steps of 5): 10 of 25 is 108.8 high.
    center, other = 68 + 138.5, 68 + 277 + 138.5
    assert f'<rect x="{center - 46 + 1:.1f}" y="{288 - 108.8:.1f}" width="44.0" height="108.8"' in text
    assert f'<rect x="{center + 1:.1f}" y="{288 - 54.4:.1f}" width="44.0" height="54.4"' in text
    alone = other - 23  # the one bar of its group stands in the middle
    assert f'<rect x="{alone + 1:.1f}" y="{288 - 217.6:.1f}" width="44.0" height="217.6"' in text
    label = f'x="{center - 46 + 23:.1f}" y="{288 - 108.8 - 5:.1f}" text-anchor="middle" class="label"'
    assert f'{label} style="font-size:11.5px">10x' in text
    assert text.count('class="bar') == 3 and text.count("<li>") == 2
    many = svg.bar_chart("t", [str(index) for index in range(10)], [("a", [1.0] * 10)], "y")
    assert f'width="{55.4 * 0.8 - 2:.1f}"' in many and "<li>" not in many
    assert svg.bar_chart("t", ["g"], [("a", [None])], "y") == ""


def test_labels_are_wrapped_into_three_lines() -> None:
    assert svg._wrap("one two three four five six", 62) == ["one two", "three four", "five six"]
    assert svg._wrap("aaaa bbbb cccc dddd eeee", 10) == ["aaaa", "bbbb", "cccc"]
    assert svg._wrap("abc de", 10) == ["abc de"], "at least six signs"


def test_markers_go_round() -> None:
    assert svg._marker(10, 20, 0) == '<circle cx="10.0" cy="20.0" r="4" class="mark series-0"/>'
    assert svg._marker(10, 20, 1) == '<rect x="6.4" y="16.4" width="7.2" height="7.2" class="mark series-1"/>'
    assert 'points="10.0,15.0 15.0,20.0 10.0,25.0 5.0,20.0"' in svg._marker(10, 20, 2)
    assert 'points="10.0,15.0 15.0,24.0 5.0,24.0"' in svg._marker(10, 20, 3)
    assert svg._marker(10, 20, 8) == svg._marker(10, 20, 0)
    assert svg._marker(10, 20, 9, square=True).startswith("<rect")
