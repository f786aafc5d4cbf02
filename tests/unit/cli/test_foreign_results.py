"""Results of vLLM, guidellm, evalscope and AISBench, read and compared; none of them, however spoiled, is a traceback.

The samples in data/foreign are one measurement (Qwen3-8B, 256 tokens in, 128 out) in the form of each tool: guidellm
0.8.1 (report schema 2) and 0.3, evalscope 1.14.1's and the names before 1.0, AISBench's files and its printed tables,
vLLM 0.33's JSON, JSON lines, sweep and printed throughput.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_cli.bench.html import html_report
from ascend_cli.bench.markdown import markdown_report
from ascend_cli.bench.sources import load
from ascend_cli.errors import UsageError

from .conftest import Ascend

SAMPLES = Path(__file__).parent / "data/foreign"
AISBENCH = "aisbench/vllm-api-stream-chat/synthetic"
EVALSCOPE = "evalscope/qwen3-8b/parallel_8_number_160/benchmark_summary.json"
AT_8 = {  # sample: seconds, median TTFT and TPOT, at eight requests at once
    "guidellm-0.8.json": (96.0, 250.0, 35.1),
    EVALSCOPE: (96.2, 250.0, 35.2),
    "evalscope": (96.2, 250.0, 35.2),
    "evalscope-older/benchmark_summary.json": (96.2, 250.0, 35.0),
    f"{AISBENCH}.json": (96.4005, 251.0, 35.3),
    f"{AISBENCH}.csv": (96.4005, 251.0, 35.3),
    "aisbench/vllm-api-stream-chat": (96.4005, 251.0, 35.3),
    "aisbench-printed.txt": (96.4005, 251.0, 35.3),
    "vllm-serve.json": (96.1, 250.0, 35.2),
    "vllm-append.jsonl": (96.1, 250.0, 35.2),
    "vllm-sweep.json": (96.1, 250.0, 35.2),
}
HOSTILE: list[Any] = [None, True, -1, 0, 1e300, float("nan"), float("inf"), "", "x", "-3 ms", [], [1], {}, {"a": []}]


@pytest.mark.parametrize("name", AT_8)
def test_every_tool_tells_the_same_measurement(name: str) -> None:
    row = next(row for row in load(SAMPLES / name) if row.workload.concurrency == 8)
    seconds, ttft, tpot = AT_8[name]
    assert (row.workload.input_tokens, row.workload.output_tokens, row.workload.prompts) == (256, 128, 160)
    assert row.typical.duration_s == pytest.approx(seconds)
    assert row.typical.output_tokens_per_s == pytest.approx(160 * 128 / seconds)
    assert row.typical.ttft_ms is not None and row.typical.ttft_ms.median == pytest.approx(ttft)
    assert row.typical.tpot_ms is not None and row.typical.tpot_ms.median == pytest.approx(tpot)
    assert row.chip is None and row.tensor_parallel_size is None and row.clock == "unknown" and not row.refused
    assert row.typical.input_tokens_from == "client"


def test_guidellm_s_tpot_is_not_taken_for_vllm_s() -> None:
    """Its time_per_output_token counts the first token: 31.3 ms in the sample where vLLM's TPOT is 30.8."""
    assert [row.typical.tpot_ms.median for row in load(SAMPLES / "guidellm-0.8.json") if row.typical.tpot_ms] == [
        30.8,
        35.1,
    ]


def test_what_a_tool_left_out_is_said() -> None:
    cut = load(SAMPLES / "guidellm-0.8.json")[1]
    assert any("3 requests were cut off" in note for note in cut.notes)
    failed = load(SAMPLES / "guidellm-0.3.json")[0]
    assert failed.refused == "100 of 102 requests completed" and failed.workload.request_rate == 2.0


def test_a_printed_throughput_is_an_offline_row() -> None:
    (row,) = load(SAMPLES / "vllm-throughput.txt")
    assert row.kind == "throughput" and row.workload.prompts == 200
    assert row.typical.output_tokens_per_s == pytest.approx(407.47, abs=0.01)


def test_a_folder_of_several_tools_is_read(tmp_path: Path) -> None:
    for name in ("vllm-serve.json", "guidellm-0.8.json"):
        shutil.copy(SAMPLES / name, tmp_path)
    assert len(load(tmp_path)) == 3


def test_yaml_of_guidellm(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "benchmarks.yaml").write_text(yaml.safe_dump(json.loads((SAMPLES / "guidellm-0.8.json").read_text())))
    assert [row.workload.concurrency for row in load(tmp_path / "benchmarks.yaml")] == [1, 8]


def test_two_tools_are_compared(ascend: Ascend) -> None:
    answer = ascend("bench", "compare", SAMPLES / "guidellm-0.8.json", SAMPLES / "vllm-append.jsonl", "--json")
    assert answer.code in (0, 1), answer.err
    pairs = answer.json["comparison"]["pairs"]
    assert pairs
    report = ascend("bench", "compare", SAMPLES / "evalscope", SAMPLES / "vllm-serve.json")
    assert "same" in report.out and report.code == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "Performance Parameters,Stage,Average\nTTFT,total,3 ms\n", "a.json"),
        ("a.json", '{"elapsed_time": 3, "num_requests": 1, "total_num_tokens": 5}', "prints"),
        ("a.json", '{"benchmarks": [], "args": {}}', "holds no benchmark"),
        ("a.txt", "Throughput: 3.18 requests/s, 1222.40 total tokens/s, 407.47 output tokens/s\n", "Total num prompt"),
    ],
)
def test_half_a_result_says_what_is_missing(ascend: Ascend, tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    answer = ascend("bench", "report", tmp_path / name, "-o", tmp_path / "report")
    assert answer.code == 2 and says in answer.error_line


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else [])
    )
    for key, part in items:
        yield from _places(part, (*path, key))


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    found = dict(document) if isinstance(document, dict) else list(document)
    found[path[0]] = _with(document[path[0]], path[1:], value)
    return found


def _survives(source: Path) -> None:
    """Rows that the reports can show, or one sentence."""
    try:
        rows = load(source)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    html_report(rows, "title", None)
    markdown_report(rows, "title", None)


JSON_SAMPLES = ["guidellm-0.8.json", "guidellm-0.3.json", EVALSCOPE, f"{AISBENCH}.json", "vllm-serve.json"]
BESIDE = ["benchmark_percentile.json", "benchmark_args.json"]


@pytest.mark.parametrize("name", [*JSON_SAMPLES, *(str(Path(EVALSCOPE).with_name(beside)) for beside in BESIDE)])
def test_a_hostile_value_anywhere_is_one_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree((SAMPLES / name).parent, folder)
    document = json.loads((SAMPLES / name).read_text())
    read = folder / (Path(EVALSCOPE).name if Path(name).name in BESIDE else Path(name).name)
    places = list(_places(document))
    step = max(1, len(places) // 40)
    for number, path in enumerate(places[::step] if len(places) > 120 else places):
        for value in HOSTILE[number % 2 :: 2] if len(places) > 60 else HOSTILE:
            (folder / Path(name).name).write_text(json.dumps(_with(document, path, value)))
            _survives(read)


@pytest.mark.parametrize(
    "name", ["aisbench-printed.txt", "vllm-throughput.txt", "vllm-append.jsonl", f"{AISBENCH}.csv"]
)
def test_a_text_cut_anywhere_is_one_sentence(name: str, tmp_path: Path) -> None:
    shutil.copytree((SAMPLES / name).parent, tmp_path / "run")
    text = (SAMPLES / name).read_text()
    file = tmp_path / "run" / Path(name).name
    for end in range(0, len(text), max(1, len(text) // 50)):
        file.write_text(text[:end])
        _survives(file)


@given(
    line=st.integers(0, 200),
    cell=st.sampled_from(["", "x", "-1", "1e999", "nan ms", "3", "\u2502", "total", "Benchmark Duration"]),
)
@settings(max_examples=60)
def test_an_odd_cell_of_a_printed_table_is_one_sentence(
    line: int, cell: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = (SAMPLES / "aisbench-printed.txt").read_text().splitlines()
    parts = lines[line % len(lines)].split("\u2502")
    parts[min(len(parts) - 1, 1 + line % 4)] = cell
    lines[line % len(lines)] = "\u2502".join(parts)
    file = tmp_path_factory.mktemp("odd") / "printed.txt"
    file.write_text("\n".join(lines))
    _survives(file)
