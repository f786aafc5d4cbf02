"""Published figures of Qwen3 on four 310P3 chips beside this plugin in modelled time, and what the model is worth.

The published figures (vllm-ascend 0.18.0rc1) are in ascend_cli/bench/published.toml. Ours come from vLLM and this
plugin, unmodified, on emulated 310P3 chips under the clock "timing" (emulator/src/core/clock.h): real configurations,
dummy weights, eager and with graphs. Host time is this machine's, divided by the dilation: it is printed with the
tables. The roofline is bytes over bandwidth and operations over peak. Nothing of ours ran on a card.

The same command judges the model (docs/fidelity.md): two constants are fitted to the published rows of concurrency 1,
and every other figure is predicted with them (see _published_model).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from ascend_cli.bench.published import published_rows
from ascend_cli.bench.results import Row
from benchmarks._fidelity_chinese import chinese
from benchmarks._published_bounds import bound_lines
from benchmarks._published_model import CHIP, Incumbent, Prediction, fidelity_page, judge, model_table, placement
from benchmarks._shapes import write_model

WORKER = Path(__file__).with_name("_published_engine.py")
MODES = ("eager", "graph")
KINDS = ("online", "offline")  # each with an engine of its own: a server's defaults differ from those of vllm.LLM
MAX_MODEL_LEN = 2048
# A chip is emulated by a process, and a core of this machine serves several: the dilation gives each a core's worth.
# On a busy machine it must be larger (--dilation); figures that fall as it rises are the host's.
DILATION = {1: 2.0, 4: 4.0}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks published", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=["qwen3-0.6b", "qwen3-32b"], default=["qwen3-0.6b", "qwen3-32b"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 4], help="tensor-parallel sizes (default: 1 4)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the published prompts to run (default: all)")
    parser.add_argument("--offline-share", type=float, help="the same for offline rows (default: --share)")
    parser.add_argument("--output-tokens", type=int, help="tokens a request answers (default: the published)")
    parser.add_argument("--dilation", type=float, help="wall seconds of a modelled second (default: 2, 4 for 4 chips)")
    parser.add_argument("--only-model", action="store_true", help="judge the model of time only; run no engine")
    parser.add_argument("--reuse", type=Path, nargs="+", metavar="FILE", help="print earlier runs; run no engine")
    parser.add_argument(
        "--fidelity", type=Path, metavar="FILE", help="write the page on fidelity here, and the Chinese one into zh/"
    )
    parser.add_argument("--json", type=Path, default=Path("published.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    rows = [row for row in wanted_rows() if row.model in chosen.models and row.tensor_parallel_size in chosen.ranks]
    incumbent, predictions = judge(published_rows())
    if chosen.reuse:
        engines = [engine for file in chosen.reuse for engine in json.loads(file.read_text())["engines"]]
    else:
        engines = []
        chosen.json.write_text(json.dumps(document(engines, incumbent, predictions), indent=1))
        for engine in [] if chosen.only_model else run_engines(rows, chosen):
            engines.append(engine)
            chosen.json.write_text(json.dumps(document(engines, incumbent, predictions), indent=1))
    tables = online_tables(rows, engines) + offline_tables(rows, engines) + [host_line(engines)]
    if any(engine["mode"] == "graph" for engine in engines):
        tables += bound_lines(rows, lambda row, kind: found(engines, row, "graph", kind), engines)
    tables += step_tables(engines)
    print("\n".join(tables + model_table(incumbent, predictions)))
    if chosen.fidelity:
        page = fidelity_page(incumbent, predictions, tables if engines else [])
        chosen.fidelity.write_text(page)
        (chosen.fidelity.parent / "zh").mkdir(exist_ok=True)
        (chosen.fidelity.parent / "zh" / chosen.fidelity.name).write_text(chinese(page))
    return 0


def wanted_rows() -> list[Row]:
    """The published rows, and Qwen3-0.6B online on one chip, which it fits on which nobody published it."""
    published = published_rows()
    small = [row for row in published if row.kind == "serve" and row.model == "qwen3-0.6b"]
    return published + [replace(row, tensor_parallel_size=1, runs=()) for row in small]


def document(engines: list[dict[str, Any]], incumbent: Incumbent, predictions: list[Prediction]) -> dict[str, Any]:
    return {
        "schema": "ascend.benchmark.published/1",
        "modelled": True,
        "chip": CHIP,
        "host_launch_us": incumbent.launch_us,
        "prompt_token_us": incumbent.prompt_token_us,
        "predictions": [vars(prediction) | {"error": prediction.error} for prediction in predictions],
        "engines": engines,
    }


# ------------------------------------------------------------------------------------------------------ our engines


def run_engines(rows: list[Row], chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for model, ranks in dict.fromkeys((row.model, row.tensor_parallel_size) for row in rows):
        for mode in chosen.modes:
            engine: dict[str, Any] = {"model": model, "ranks": ranks, "mode": mode}
            for kind in KINDS:
                workloads = [
                    workload
                    for row in rows
                    if (row.model, row.tensor_parallel_size) == (model, ranks)
                    for workload in workloads_of(row, kind, chosen)
                ]
                if workloads and ranks is not None:
                    print(f"{model}, {ranks} chips, {mode}, {kind} ...", file=sys.stderr, flush=True)
                    result = run_engine(model, ranks, mode, kind, workloads, chosen)
                    yield {**engine, "online": [], "offline": [], **result}


def workloads_of(row: Row, kind: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The row's workload, cut to the share that was asked for, if it is of this kind."""
    if kind != ("online" if row.kind == "serve" else "offline"):
        return []
    share = chosen.offline_share if kind == "offline" and chosen.offline_share is not None else chosen.share
    if share == 0:
        return []
    workload = row.workload
    lengths = {
        "prompts": max(workload.concurrency or 1, round(workload.prompts * share)),
        "input_tokens": workload.input_tokens,
        "output_tokens": chosen.output_tokens or workload.output_tokens,
    }
    return [lengths if kind == "offline" else {"concurrency": workload.concurrency, **lengths}]


def run_engine(
    model: str, ranks: int, mode: str, kind: str, workloads: list[dict[str, Any]], chosen: argparse.Namespace
) -> dict[str, Any]:
    """One engine in a process of its own through the workloads. Raises if it fails."""
    dilation = chosen.dilation or DILATION.get(ranks, ranks)
    job: dict[str, Any] = {"dilation": dilation, "kind": kind, "workloads": workloads}
    settings = Settings(chip=CHIP, count=4, clock="timing", time_dilation=dilation)
    with tempfile.TemporaryDirectory() as folder, emulate(settings) as machine:
        job["options"] = {
            "model": str(write_model(Path(folder) / model, model)),
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "dtype": "float16",
            "max_model_len": MAX_MODEL_LEN,
            "tensor_parallel_size": ranks,
            "enable_prefix_caching": False,
            "enforce_eager": mode == "eager",
            "disable_log_stats": True,
        }
        job_file, result_file = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(job))
        environment = {**os.environ, **machine.environment, "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"}
        started = time.monotonic()
        subprocess.run(
            [sys.executable, str(WORKER), str(job_file), str(result_file)], check=True, env=environment,
            stdout=sys.stderr,
        )  # fmt: skip
        result: dict[str, Any] = json.loads(result_file.read_text())
        return result | {"wall_s": time.monotonic() - started, "dilation": dilation}


# ----------------------------------------------------------------------------------------------------------- tables


def found(engines: list[dict[str, Any]], row: Row, mode: str, kind: str) -> dict[str, Any] | None:
    for engine in engines:
        if (engine["model"], engine["ranks"], engine["mode"]) != (row.model, row.tensor_parallel_size, mode):
            continue
        workloads: list[dict[str, Any]] = engine[kind]
        for workload in workloads:
            if kind == "offline" or workload["concurrency"] == row.workload.concurrency:
                return workload
    return None


def cell(workload: dict[str, Any] | None, figure: str) -> str:
    return "-" if workload is None else f"{workload[figure]:.1f}"


def online_tables(rows: list[Row], engines: list[dict[str, Any]]) -> list[str]:
    lines = []
    for figure, title in (("tpot_ms", "time per output token"), ("ttft_ms", "time to first token")):
        lines += [
            f"\nOnline, median {title} in ms (256 tokens in, 128 out)\n",
            "| model | chips | requests | published | ours eager | ours graph | roofline |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in rows:
            if row.kind != "serve":
                continue
            place, requests = placement(row), row.workload.concurrency or 1
            context = row.workload.input_tokens + row.workload.output_tokens // 2
            floor = (
                place.decode_floor_ms(requests, context)
                if figure == "tpot_ms"
                else place.prefill_floor_ms(row.workload.input_tokens)
            )
            ours = [cell(found(engines, row, mode, "online"), figure) for mode in MODES]
            published = f"{getattr(row.runs[0], figure).median:.1f}" if row.runs else "-"
            lines.append(
                f"| {row.model} | {row.tensor_parallel_size} | {requests} | {published} | {ours[0]} | {ours[1]} | "
                f"{floor:.1f} |"
            )
    return lines


def offline_tables(rows: list[Row], engines: list[dict[str, Any]]) -> list[str]:
    lines = [
        "\nOffline, output tokens a second (1,024 tokens in, 128 out; prompts of ours in brackets, 200 published)\n",
        "| model | chips | published | ours eager | ours graph | roofline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row.kind != "throughput":
            continue
        ours = []
        for mode in MODES:
            workload = found(engines, row, mode, "offline")
            if workload is None:
                ours.append("-")
                continue
            speed = workload["prompts"] * workload["output_tokens"] / workload["duration_s"]
            ours.append(f"{speed:.0f} ({workload['prompts']})")
        published = max(run.output_tokens / run.duration_s for run in row.runs)
        load = row.workload
        floor_s = placement(row).offline_floor_s(load.prompts, load.input_tokens, load.output_tokens)
        floor = load.prompts * load.output_tokens / floor_s
        lines.append(
            f"| {row.model} | {row.tensor_parallel_size} | {published:.0f} | {ours[0]} | {ours[1]} | {floor:.0f} |"
        )
    return lines


def host_line(engines: list[dict[str, Any]]) -> str:
    """How ours were run, where it differs from the published figures: a table without it could not be judged."""
    lines = []
    for engine in engines:
        loads = [
            f"{load['prompts']} prompts of {load['input_tokens']} + {load['output_tokens']} tokens"
            for load in engine["online"] + engine["offline"]
        ]
        lines.append(
            f"* {engine['model']}, {engine['ranks']} chips, {engine['mode']}: dilation {engine['dilation']:g}; "
            + ", ".join(loads)
        )
    return "\nHost time of ours is that of the machine that emulates, divided by the dilation:\n\n" + "\n".join(
        lines or ["* nothing was run"]
    )


def step_tables(engines: list[dict[str, Any]]) -> list[str]:
    """What the chip's time in a step goes to, of each engine that ran online: what is not the host's."""
    lines = []
    for engine in engines:
        for kind, tokens in (("decode", "one token"), ("prefill", "256 tokens")):
            by_task = engine.get("steps", {}).get(kind)
            if not by_task or not engine["online"]:
                continue
            total = sum(by_task.values())
            name = f"{engine['model']}, {engine['ranks']} chips, {engine['mode']}"
            lines.append(f"\nThe chip's time in a step of {tokens}, {name}: {total:.2f} ms\n")
            lines += ["| task | ms |", "| --- | --- |"]
            for task, ms in sorted(by_task.items(), key=lambda item: -item[1]):
                if ms >= total / 200:
                    lines.append(f"| {task} | {ms:.2f} |")
    return lines
