"""Driving `vllm bench`: a stand-in for the `vllm` command writes what vLLM 0.32 writes, from recorded shapes.

The stand-in serves too: `/v1/models`, `/metrics` with vLLM's counters. What is tested is everything of ours around it:
the options passed, the files read, the audit, repetition, sweeps that go on where they stopped.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from ascend_cli.bench import vllm_bench
from ascend_cli.bench.metrics import Metrics
from ascend_cli.bench.results import Row, Run, Workload, load, save
from ascend_cli.bench.runner import place_of
from ascend_cli.bench.server import find_target, processed_tokens
from ascend_cli.bench.sweep import parse_settings
from ascend_cli.bench.vllm_bench import parse_serve, parse_throughput, with_p99
from ascend_cli.errors import AscendError, UsageError
from ascend_cli.serving import records

from .conftest import Ascend

FAKE_VLLM = r"""#!/usr/bin/env python3
import json, os, sys, urllib.request
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\n")
if os.environ.get("FAIL"):
    print("RuntimeError: NPU out of memory. Tried to allocate 502.00 MiB", file=sys.stderr)
    sys.exit(1)
def option(name, default=None):
    return words[words.index(name) + 1] if name in words else default
prompts = int(option("--num-prompts"))
asked_in, asked_out = int(option("--random-input-len", 1024)), int(option("--random-output-len", 128))
if words[1] == "throughput":
    total_in, total_out = prompts * asked_in, prompts * asked_out
    json.dump({"model_id": option("--model"), "elapsed_time": 10.0, "num_requests": prompts,
               "total_num_tokens": total_in + total_out, "requests_per_second": prompts / 10, "tokens_per_second": 1.0},
              open(option("--output-json"), "w"))
    print(f"Throughput: x requests/s\nTotal num prompt tokens:  {total_in}\nTotal num output tokens:  {total_out}")
    sys.exit(0)
template = int(os.environ.get("TEMPLATE_TOKENS", 9))
short = int(os.environ.get("SHORT_ANSWERS", 0))
sent = prompts + int(option("--num-warmups", 0))
body = json.dumps({"prompt": sent * (asked_in + template), "generated": sent * (asked_out - short)}).encode()
urllib.request.urlopen(option("--base-url") + "/count", data=body).read()
concurrency = int(option("--max-concurrency", 1))
tpot = 0.05 * (1 + 0.1 * concurrency)
ttft = 0.1 * concurrency
result = {"duration": prompts / concurrency * (ttft + 127 * tpot), "completed": prompts, "failed": 0,
          "total_input_tokens": prompts * asked_in, "total_output_tokens": prompts * (asked_out - short),
          "max_output_tokens_per_s": 20.0, "max_concurrent_requests": concurrency + 1,
          "start_times": [100.0 + i for i in range(prompts)], "ttfts": [ttft] * prompts,
          "itls": [[tpot] * (asked_out - short - 1)] * prompts, "input_lens": [asked_in] * prompts,
          "output_lens": [asked_out - short] * prompts, "errors": [""] * prompts, "generated_texts": ["x"] * prompts}
for name, value in (("ttft", ttft), ("tpot", tpot), ("itl", tpot)):
    for statistic in ("mean", "median", "p99"):
        result[f"{statistic}_{name}_ms"] = 1000 * value
    result[f"std_{name}_ms"] = 0.0
json.dump(result, open(os.path.join(option("--result-dir"), option("--result-filename")), "w"))
"""


class FakeServer(http.server.BaseHTTPRequestHandler):
    """/v1/models, /metrics and /health of a served model; /count adds to the counters."""

    counters: ClassVar[dict[str, int]] = {"prompt": 0, "generated": 0}
    root: ClassVar[str] = "Qwen/Qwen3-0.6B"
    models: ClassVar[bytes] = b""  # another answer of /v1/models
    shows_metrics: ClassVar[bool] = True

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.models:
            return self._answer(self.models)
        if self.path == "/metrics" and not self.shows_metrics:
            return self._answer(b"not found", 404)
        if self.path == "/v1/models":
            if self.headers.get("Authorization") == "Bearer wrong":
                return self._answer(b"{}", 401)
            return self._answer(json.dumps({"data": [{"id": "qwen3-0.6b", "root": self.root}]}).encode())
        text = (
            f'vllm:prompt_tokens_total{{engine="0",model_name="qwen3-0.6b"}} {self.counters["prompt"]}.0\n'
            f'vllm:generation_tokens_total{{engine="0"}} {self.counters["generated"]}.0\n'
            'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'
            'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
        )
        return self._answer(text.encode())

    def do_POST(self) -> None:
        added = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for name, value in added.items():
            self.counters[name] += value
        self._answer(b"{}")

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    FakeServer.counters.update(prompt=0, generated=0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the stand-in in place of `vllm`; the file lists the command lines it was given."""
    command = tmp_path / "vllm"
    command.write_text(FAKE_VLLM)
    command.chmod(0o755)
    monkeypatch.setattr(vllm_bench, "vllm_command", lambda: str(command))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.jsonl"))
    return tmp_path / "calls.jsonl"


def command_lines(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_serve_prints_the_table_and_saves_rows(ascend: Ascend, url: str, calls: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.json"
    answer = ascend("bench", "serve", "--url", url, "--chip", "310P3", "--tp", "4", "--repeat", "2", "-o", output)
    assert answer.code == 0, answer.err
    assert answer.out.count("Serving Benchmark Result") == 2
    assert "Share of the roofline" in answer.out
    one, eight = load(output)
    assert (one.workload.concurrency, eight.workload.concurrency) == (1, 8)
    assert one.typical.input_tokens == 20 * (256 + 9), "the server's count, less its warm-up requests"
    assert one.spread == 0.0
    words = command_lines(calls)[0]
    assert words[words.index("--tokenizer") + 1] == "Qwen/Qwen3-0.6B", "found from the server, not from the served name"
    assert words[words.index("--random-input-len") + 1] == "256"
    assert "--ignore-eos" in words


def test_serve_refuses_what_was_not_asked_for(
    ascend: Ascend, url: str, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLATE_TOKENS", str(1024 - 256))
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1", "--repeat", "3")
    assert answer.code == 1
    assert "REFUSED: 1,024 input tokens a prompt were processed, 256 were asked for" in answer.out
    assert len(command_lines(calls)) == 1, "no repetition of a run that measures something else"


def test_serve_refuses_short_answers(ascend: Ascend, url: str, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_ANSWERS", "28")
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1", "--json")
    assert answer.code == 1
    assert "answers ended early" in answer.json["rows"][0]["refused"]


def test_serve_reports_goodput(ascend: Ascend, url: str, calls: Path) -> None:
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1,8", "--slo", "ttft:500", "--json")
    shares = [row["goodput"]["share"] for row in answer.json["rows"]]
    assert shares == [1.0, 0.0]


def test_throughput_passes_the_options_that_vllm_reads(ascend: Ascend, calls: Path, model_folder: Path) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    answer = ascend(
        "bench", "throughput", model_folder, "--num-prompts", "10", "--repeat", "2", "--chip", "310P3", "--tp", "4"
    )
    assert answer.code == 0, answer.err
    assert answer.out.count("output tokens/s") == 2
    words = command_lines(calls)[0]
    assert words[words.index("--random-input-len") + 1] == "256"
    assert "--input-len" not in words
    assert words[words.index("--tensor-parallel-size") + 1] == "4"


def test_a_failed_run_shows_the_last_words(
    ascend: Ascend, calls: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model_folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("FAIL", "1")
    answer = ascend("bench", "throughput", model_folder)
    assert answer.code == 1
    assert "NPU out of memory" in answer.err.strip().splitlines()[-1]


def test_sweep_goes_on_where_it_stopped(ascend: Ascend, url: str, calls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = [
        "bench",
        "sweep",
        "qwen3-0.6b",
        "--url",
        url,
        "-o",
        str(folder),
        "--output-len",
        "16",
        "--slo",
        "ttft:500",
    ]
    first = ascend(*arguments, "--concurrency", "1,2", "--json")
    assert first.code == 0, first.err
    assert len(command_lines(calls)) == 2
    second = ascend(*arguments, "--concurrency", "1,2,4,8", "--json")
    assert len(command_lines(calls)) == 4, "two points were kept"
    points = second.json["points"]
    assert [point["at once"] for point in points] == [1, 2, 4, 8]
    assert "c=4" in second.json["most_load_within_slo"]
    report = ascend("bench", "report", folder, "-o", tmp_path / "report")
    assert report.code == 0


def test_settings_of_a_sweep() -> None:
    settings = parse_settings(["tensor-parallel-size=1,2", "enforce_eager=true,false"])
    assert [setting.flags for setting in settings] == [
        ["--tensor-parallel-size", "1", "--enforce-eager"],
        ["--tensor-parallel-size", "1", "--no-enforce-eager"],
        ["--tensor-parallel-size", "2", "--enforce-eager"],
        ["--tensor-parallel-size", "2", "--no-enforce-eager"],
    ]
    assert settings[2].tensor_parallel_size == 2


def test_the_server_tells_model_and_tokenizer(url: str) -> None:
    target = find_target(url + "/v1")
    assert (target.model, target.root) == ("qwen3-0.6b", "Qwen/Qwen3-0.6B")
    with pytest.raises(UsageError, match="serves qwen3"):
        find_target(url, model="other")
    with pytest.raises(UsageError, match="--api-key-file"):
        find_target(url, api_key="wrong")


def test_a_tokenizer_on_another_machine_is_asked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeServer, "root", "/root/models/qwen3-32B")
    with pytest.raises(UsageError, match="give --tokenizer"):
        find_target(url)


TWO_ENGINES = """# HELP vllm:prompt_tokens_total Prompt tokens.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a}b\\"c"} 5.0
vllm:prompt_tokens_total{engine="1",model_name="a}b\\"c"} 7.0
vllm:generation_tokens_total{engine="0"} 1.0
vllm:generation_tokens_total{engine="1"} 1.0
vllm:kv_cache_usage_perc{engine="0"} 0.8
vllm:kv_cache_usage_perc{engine="1"} 0.8
vllm:num_requests_running{engine="0"} 2.0
vllm:num_requests_running{engine="1"} 3.0
"""


def test_engines_are_kept_apart() -> None:
    """Two engines at 80 % are at 80 %, not at 160; a label may hold a brace."""
    found = Metrics.parse(TWO_ENGINES)
    assert found.engines == ["0", "1"]
    assert (found.share("vllm:kv_cache_usage_perc"), found.total("vllm:num_requests_running")) == (0.8, 5.0)
    assert found.of("vllm:num_requests_running", "1") == 3.0
    assert processed_tokens(found, found) == (0, 0)
    assert processed_tokens(None, found) is None
    with pytest.raises(ValueError):
        Metrics.parse("<html>{{ not metrics")


def test_top_shows_every_engine(ascend: Ascend, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ascend_cli.top.sample.metrics", lambda target: Metrics.parse(TWO_ENGINES))
    sample = ascend("top", "--url", url, "--json", "--interval", "0.2").json["sample"]
    assert sample["cache_share"] == 0.8
    assert [engine["running"] for engine in sample["engines"]] == [2.0, 3.0]
    assert "cache of engine 1" in ascend("top", "--url", url, "--once", "--interval", "0.2").out


# --------------------------------------------------------------------------------------- what is not known


def test_another_machines_chip_and_size_are_unknown() -> None:
    place = place_of("http://gpu-farm.example:8000", "", None, "")
    assert (place.chip, place.tensor_parallel_size, place.weight_format, place.clock) == (None, None, None, "unknown")
    assert set(place.known_by.values()) == {"unknown"}
    told = place_of("http://gpu-farm.example:8000", "910B3", 4, "w8a8")
    assert (told.chip, told.tensor_parallel_size, told.weight_format) == ("910B3", 4, "w8a8")
    assert set(told.known_by.values()) == {"flag"}


def test_a_record_tells_and_its_flags_stay_out_of_rows() -> None:
    import os

    records.remember(
        records.StartedServer(
            os.getpid(), 8123, "m", "310P3", 2, False, "real", "w8a8", {"flags": "--hf-overrides SECRET"}
        )
    )
    place = place_of("http://localhost:8123", "", None, "")
    assert (place.chip, place.tensor_parallel_size, place.weight_format) == ("310P3", 2, "w8a8")
    assert set(place.known_by.values()) == {"record"} and place.settings == {}


def test_a_share_of_the_roofline_needs_facts(ascend: Ascend, url: str, calls: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.json"
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1", "-o", output)
    assert answer.code == 0, answer.err
    assert "Share of the roofline" not in answer.out
    assert "no share of the roofline: give --chip, --tp" in answer.out
    (row,) = load(output)
    assert (row.chip, row.tensor_parallel_size) == (None, None)


def test_tokens_that_could_not_be_audited_are_said_loudly(
    ascend: Ascend, url: str, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "shows_metrics", False)
    output = tmp_path / "rows.json"
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1", "-o", output)
    assert answer.out.count("TOKENS NOT AUDITED") == 1 and "TOKENS NOT AUDITED" in answer.err
    assert load(output)[0].typical.input_tokens_from == "client"
    monkeypatch.setattr(FakeServer, "shows_metrics", True)
    audited = ascend("bench", "serve", "--url", url, "--concurrency", "1", "-o", output)
    assert "NOT AUDITED" not in audited.out + audited.err
    assert load(output)[0].typical.input_tokens_from == "server"


# -------------------------------------------------------------------------------------------- runs that fail


def test_a_server_that_dies_leaves_rows_and_not_a_traceback(
    ascend: Ascend, url: str, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    output = tmp_path / "rows.json"
    answer = ascend("bench", "serve", "--url", url, "--chip", "310P3", "--tp", "1", "-o", output)
    assert answer.code == 1
    rows = load(output)
    assert len(rows) == 2 and all("NPU out of memory" in str(row.refused) for row in rows)
    assert ascend("bench", "compare", output, output).code == 0, "nothing was measured: nothing got worse"
    assert ascend("bench", "report", output, "-o", tmp_path / "report").code == 0


def test_zero_everywhere_is_compared_and_reported(ascend: Ascend, tmp_path: Path) -> None:
    workload = Workload(256, 128, 20, 1)
    dead = Row("serve", "m", workload, (Run.nothing(20), Run.nothing(20)), chip="310P3", tensor_parallel_size=1)
    save([dead], tmp_path / "dead.json")
    assert ascend("bench", "compare", tmp_path / "dead.json", tmp_path / "dead.json", "--json").code in (0, 2)
    assert ascend("bench", "report", tmp_path / "dead.json", "-o", tmp_path / "report").code == 0


def test_a_format_that_is_none_is_refused_before_the_run(ascend: Ascend, url: str, calls: Path) -> None:
    answer = ascend("bench", "serve", "--url", url, "--weights", "bf16")
    assert answer.code == 2 and "choose one of" in answer.error_line
    assert command_lines(calls) == []


def test_percentiles_of_the_users_choice_keep_the_99th() -> None:
    assert with_p99(["--metric-percentiles", "50,95"]) == ["--metric-percentiles", "50,95,99"]
    assert with_p99(["--metric_percentiles=99"]) == ["--metric_percentiles=99"]
    with pytest.raises(AscendError, match="p99_ttft_ms"):
        parse_serve(SERVED | {"mean_ttft_ms": 1.0, "median_ttft_ms": 1.0})
    with pytest.raises(AscendError, match="lacks or spoils"):
        parse_serve(SERVED | {"duration": None})


SERVED = {"duration": 2.0, "completed": 1, "failed": 0, "total_input_tokens": 4, "total_output_tokens": 3}


def test_progress_is_passed_on_as_it_comes(
    ascend: Ascend, url: str, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "vllm"
    command.write_text(
        FAKE_VLLM.replace("words = sys.argv[1:]", 'words = sys.argv[1:]; print("50%|#####", file=sys.stderr)')
    )
    answer = ascend("bench", "serve", "--url", url, "--concurrency", "1")
    assert "50%|#####" in answer.err and "50%" not in answer.out


# ------------------------------------------------------------------------------------ servers that are none


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": 3}', b'{"data": [1]}', b"[]", b"\xff", b""])
def test_another_service_on_the_port_is_said(
    ascend: Ascend, url: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "models", body or b" ")
    answer = ascend("bench", "serve", "--url", url)
    assert answer.code == 2, "nothing was done"
    assert "is it a vLLM server?" in answer.error_line


@pytest.mark.parametrize("address", ["http://h:abc", "http://", "ftp://x", "http://[::1", "http://a b", "http://h:0"])
@pytest.mark.parametrize("command", [["bench", "serve"], ["top", "--once"], ["bench", "sweep", "smollm2"]])
def test_an_address_that_is_none_is_one_line(ascend: Ascend, address: str, command: list[str]) -> None:
    answer = ascend(*command, "--url", address)
    assert answer.code == 2
    assert "address" in answer.error_line


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:1080", "nonsense"])
def test_loopback_is_never_asked_through_a_proxy(
    ascend: Ascend, url: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert find_target(url).model == "qwen3-0.6b"
    assert ascend("top", "--once", "--url", f"{url}/v1", "--interval", "0.2").code == 0
    assert "127.0.0.1" in find_target(url).environment()["no_proxy"]


# ------------------------------------------------------------------------------------------------------ sweeps


def sweep_words(url: str, folder: Path, *more: str) -> list[str]:
    return ["bench", "sweep", "m", "--url", url, "-o", str(folder), "--output-len", "16", "--concurrency", "1", *more]


def test_a_sweep_never_mixes_models(
    ascend: Ascend, url: str, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    assert ascend(*sweep_words(url, folder)).code == 0
    monkeypatch.setattr(FakeServer, "root", "Qwen/Qwen3-32B")
    answer = ascend(*sweep_words(url, folder))
    assert answer.code == 2 and "holds another sweep (its model differs)" in answer.error_line
    assert len(command_lines(calls)) == 1
    monkeypatch.undo()
    unnamed = tmp_path / "unnamed"
    unnamed.mkdir()
    (unnamed / "point.json").write_text("{}")
    assert "say not what they are of" in ascend(*sweep_words(url, unnamed)).error_line


def test_refused_and_damaged_points_are_measured_again(
    ascend: Ascend, url: str, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    monkeypatch.setenv("SHORT_ANSWERS", "3")
    assert ascend(*sweep_words(url, folder)).code == 1
    monkeypatch.delenv("SHORT_ANSWERS")
    assert ascend(*sweep_words(url, folder)).code == 0
    (file,) = [one for one in folder.glob("*.json") if one.name != "sweep.json"]
    file.write_text(file.read_text()[:100])
    again = ascend(*sweep_words(url, folder))
    assert again.code == 0 and "is measured again" in again.err
    assert len(command_lines(calls)) == 3
    assert ascend(*sweep_words(url, folder)).code == 0
    assert len(command_lines(calls)) == 3, "a good point is kept"


def test_engines_do_not_outlive_a_server_that_died(tmp_path: Path) -> None:
    """The API server ends; its engine, in the same session, holds chips until it is ended too."""
    import subprocess
    import sys
    import time

    import psutil

    from ascend_cli.bench import sweep_run

    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '300']).pid, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    engine = int(process.stdout.readline())
    process.stdout.close()
    process.wait()
    assert psutil.pid_exists(engine)
    sweep_run.ENGINE_STOP_TIMEOUT_S, kept = 0.2, sweep_run.ENGINE_STOP_TIMEOUT_S
    try:
        sweep_run.stop(process)
    finally:
        sweep_run.ENGINE_STOP_TIMEOUT_S = kept
    deadline = time.monotonic() + 10
    while psutil.pid_exists(engine) and psutil.Process(engine).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_shapes_of_vllm_are_read() -> None:
    printed = "Throughput: 2.16 requests/s\nTotal num prompt tokens:  204800\nTotal num output tokens:  25600\n"
    run = parse_throughput({"elapsed_time": 92.5, "num_requests": 200}, printed)
    assert (run.input_tokens, run.output_tokens, run.completed) == (204_800, 25_600, 200)
    document = {"duration": 2.0, "completed": 1, "failed": 1, "total_input_tokens": 4, "total_output_tokens": 3}
    document |= {"start_times": [5.0, 6.0], "ttfts": [0.1, 0.0], "itls": [[0.02, 0.04], []], "input_lens": [4, 4]}
    document |= {"output_lens": [3, 0], "errors": ["", "boom"]}
    (request,) = parse_serve(document).requests
    assert (request.ttft_ms, request.tpot_ms) == (100.0, pytest.approx(30.0))


def test_top_shows_server_and_rates(ascend: Ascend, url: str) -> None:
    answer = ascend("top", "--url", url, "--json", "--interval", "0.2")
    assert answer.code == 0
    sample = answer.json["sample"]
    assert (sample["running"], sample["waiting"], sample["cache_share"]) == (3.0, 1.0, 0.25)
    picture = ascend("top", "--url", url, "--once", "--interval", "0.2")
    assert "running, waiting" in picture.out


def test_workload_names() -> None:
    assert Workload(256, 128, 20, 8).label == "256/128 c=8"
    assert Workload(256, 128, 200).label == "256/128 offline"
