"""The first user's page (Qwen3 on four 310P3 chips) beside this plugin in modelled time, and what the model is worth.

Figures of the page come from ascend_cli/bench/brief.toml. Ours come from vLLM and this plugin, unmodified, on emulated
310P3 chips under the clock "timing" (emulator/src/core/clock.h): real configurations, dummy weights, eager and with
graphs. Host time is this machine's, divided by the dilation: it is printed with the tables. The roofline is bytes
over bandwidth and operations over peak. Everything but the page is modelled; nothing ran on a card.

The same command judges the model by the page (docs/fidelity.md): one constant, the host's time for a launch on the
page's machine, is fitted to the online row of Qwen3-0.6B at concurrency 1, and every other row is predicted with it.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from ascend_cli.bench.brief import brief_rows
from ascend_cli.bench.results import Row
from ascend_cli.models.cards import find_model
from ascend_cli.plan.roofline import Placement
from ascend_plugin.chips import find
from benchmarks._shapes import write_model

WORKER = Path(__file__).with_name("_brief_engine.py")
CHIP = "310P3"
MODES = ("eager", "graph")
MAX_MODEL_LEN = 2048
# A chip is emulated by a process, and a core of this machine serves several: the dilation gives each a core's worth.
# On a busy machine it must be larger (--dilation); figures that fall as it rises are the host's.
DILATION = {1: 2.0, 4: 4.0}

# Launches of the incumbent, of which the page's 0.18.0rc1 is an older release: vllm-ascend 0.29.0rc1 in 310P mode,
# eager, one request, counted on the emulator with a 4-layer Qwen3: 74 = 4 * 13 + 22. Two all-reduces a layer, and
# one all-gather of the logits, come with tensor parallelism.
INCUMBENT_LAUNCHES_A_LAYER = 13
INCUMBENT_LAUNCHES_A_STEP = 22
COLLECTIVES_A_LAYER = 2
# vLLM's scheduler puts at most this many tokens into a step unless told otherwise.
TOKENS_A_STEP = 8192


@dataclass(frozen=True)
class Prediction:
    """A row of the page and what the model says of it; figures in ms, or in output tokens a second."""

    row: str
    figure: str
    page: float
    model: float
    fitted: bool = False

    @property
    def error(self) -> float:
        return self.model / self.page - 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks brief", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=["qwen3-0.6b", "qwen3-32b"], default=["qwen3-0.6b", "qwen3-32b"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 4], help="tensor-parallel sizes (default: 1 4)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the page's prompts to run (default: all)")
    parser.add_argument("--offline-share", type=float, help="the same for offline rows (default: --share)")
    parser.add_argument("--output-tokens", type=int, help="tokens a request answers (default: the page's)")
    parser.add_argument("--dilation", type=float, help="wall seconds of a modelled second (default: 2, 4 for 4 chips)")
    parser.add_argument("--only-model", action="store_true", help="judge the model of time only; run no engine")
    parser.add_argument("--reuse", type=Path, nargs="+", metavar="FILE", help="print earlier runs; run no engine")
    parser.add_argument("--fidelity", type=Path, metavar="FILE", help="write the page on fidelity here")
    parser.add_argument("--json", type=Path, default=Path("brief.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    rows = [row for row in wanted_rows() if row.model in chosen.models and row.tensor_parallel_size in chosen.ranks]
    launch_us, predictions = judge(brief_rows())
    if chosen.reuse:
        engines = [engine for file in chosen.reuse for engine in json.loads(file.read_text())["engines"]]
    else:
        engines = []
        chosen.json.write_text(json.dumps(document(engines, launch_us, predictions), indent=1))
        for engine in [] if chosen.only_model else run_engines(rows, chosen):
            engines.append(engine)
            chosen.json.write_text(json.dumps(document(engines, launch_us, predictions), indent=1))
    tables = online_tables(rows, engines) + offline_tables(rows, engines) + [host_line(engines)]
    print("\n".join(tables + model_table(launch_us, predictions)))
    if chosen.fidelity:
        chosen.fidelity.write_text(fidelity_page(launch_us, predictions, tables if engines else []))
    return 0


def wanted_rows() -> list[Row]:
    """The page's rows, and Qwen3-0.6B online on one chip, which it fits and on which the page did not run it."""
    page = brief_rows()
    small = [row for row in page if row.kind == "serve" and row.model == "qwen3-0.6b"]
    return page + [replace(row, tensor_parallel_size=1, runs=()) for row in small]


def document(engines: list[dict[str, Any]], launch_us: float, predictions: list[Prediction]) -> dict[str, Any]:
    return {
        "schema": "ascend.benchmark.brief/1",
        "modelled": True,
        "chip": CHIP,
        "host_launch_us": launch_us,
        "predictions": [vars(prediction) | {"error": prediction.error} for prediction in predictions],
        "engines": engines,
    }


# ------------------------------------------------------------------------------------------------------ our engines


def run_engines(rows: list[Row], chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for model, ranks in dict.fromkeys((row.model, row.tensor_parallel_size) for row in rows):
        for mode in chosen.modes:
            print(f"{model}, {ranks} chips, {mode} ...", file=sys.stderr, flush=True)
            workloads = [row for row in rows if (row.model, row.tensor_parallel_size) == (model, ranks)]
            result = run_engine(model, ranks, mode, workloads, chosen)
            yield {"model": model, "ranks": ranks, "mode": mode, **result}


def run_engine(model: str, ranks: int, mode: str, rows: list[Row], chosen: argparse.Namespace) -> dict[str, Any]:
    """One engine in a process of its own through all the rows' workloads. Raises if it fails."""
    dilation = chosen.dilation or DILATION.get(ranks, ranks)
    job: dict[str, Any] = {"dilation": dilation, "online": [], "offline": []}
    for row in rows:
        workload = row.workload
        offline_share = chosen.share if chosen.offline_share is None else chosen.offline_share
        share = chosen.share if row.kind == "serve" else offline_share
        if share == 0:
            continue
        lengths = {
            "prompts": max(workload.concurrency or 1, round(workload.prompts * share)),
            "input_tokens": workload.input_tokens,
            "output_tokens": chosen.output_tokens or workload.output_tokens,
        }
        if row.kind == "serve":
            job["online"].append({"concurrency": workload.concurrency, **lengths})
        else:
            job["offline"].append(lengths)
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
        return json.loads(result_file.read_text()) | {"wall_s": time.monotonic() - started, "dilation": dilation}


# ----------------------------------------------------------------------------------------------------------- tables


def placement(row: Row) -> Placement:
    return Placement(find_model(row.model).shape, find(CHIP), row.tensor_parallel_size or 1)


def found(engines: list[dict[str, Any]], row: Row, mode: str, kind: str) -> dict[str, Any] | None:
    for engine in engines:
        if (engine["model"], engine["ranks"], engine["mode"]) != (row.model, row.tensor_parallel_size, mode):
            continue
        for workload in engine[kind]:
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
            "| model | chips | requests | page | ours eager | ours graph | roofline |",
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
            page = f"{getattr(row.runs[0], figure).median:.1f}" if row.runs else "-"
            lines.append(
                f"| {row.model} | {row.tensor_parallel_size} | {requests} | {page} | {ours[0]} | {ours[1]} | "
                f"{floor:.1f} |"
            )
    return lines


def offline_tables(rows: list[Row], engines: list[dict[str, Any]]) -> list[str]:
    lines = [
        "\nOffline, output tokens a second (1,024 tokens in, 128 out; prompts of ours in brackets, 200 on the page)\n",
        "| model | chips | page | ours eager | ours graph | roofline |",
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
        page = max(run.output_tokens / run.duration_s for run in row.runs)
        floor = row.workload.prompts * row.workload.output_tokens / offline_floor_s(row)
        lines.append(f"| {row.model} | {row.tensor_parallel_size} | {page:.0f} | {ours[0]} | {ours[1]} | {floor:.0f} |")
    return lines


def host_line(engines: list[dict[str, Any]]) -> str:
    """How ours were run, where it differs from the page: a table without it could not be judged."""
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


def offline_floor_s(row: Row) -> float:
    place, workload = placement(row), row.workload
    context = workload.input_tokens + workload.output_tokens // 2
    prefill_ms = workload.prompts * place.prefill_floor_ms(workload.input_tokens)
    return (prefill_ms + workload.output_tokens * place.decode_floor_ms(workload.prompts, context)) / 1e3


# ---------------------------------------------------------------------------------------- the model, by the page's rows


def incumbent_launches(row: Row) -> int:
    """Launches of an eager step of one process."""
    layers = placement(row).shape.layers
    collectives = COLLECTIVES_A_LAYER * layers + 1 if row.tensor_parallel_size != 1 else 0
    return INCUMBENT_LAUNCHES_A_LAYER * layers + INCUMBENT_LAUNCHES_A_STEP + collectives


def judge(rows: list[Row]) -> tuple[float, list[Prediction]]:
    """The host's time for a launch on the page's machine, in us, and every figure that follows from it.

    A step takes the longer of the host's launches and the chip's modelled work. Nothing of the page but one row enters.
    """
    reference = next(
        row for row in rows if row.kind == "serve" and row.model == "qwen3-0.6b" and row.workload.concurrency == 1
    )
    launch_us = reference.runs[0].tpot_ms.median * 1e3 / incumbent_launches(reference)
    predictions = []
    for row in rows:
        place, workload = placement(row), row.workload
        host_ms = incumbent_launches(row) * launch_us / 1e3
        context = workload.input_tokens + workload.output_tokens // 2
        name = f"{row.model}, {row.tensor_parallel_size} chips, "
        if row.kind == "serve":
            requests = workload.concurrency or 1
            name += f"online, {requests} at once"
            decode_ms = max(host_ms, place.modelled_decode_ms(requests, context))
            page = row.runs[0]
            predictions.append(Prediction(name, "TPOT ms", page.tpot_ms.median, decode_ms, fitted=row is reference))
            # In a closed loop of equal requests the waiting prompts are prefilled together.
            first_ms = max(host_ms, place.modelled_prefill_ms(workload.input_tokens * requests))
            predictions.append(Prediction(name, "TTFT ms", page.ttft_ms.median, first_ms))
        else:
            page_speed = max(run.output_tokens / run.duration_s for run in row.runs)
            steps = -(-workload.prompts * workload.input_tokens // TOKENS_A_STEP)
            prefill_ms = steps * max(host_ms, place.modelled_prefill_ms(TOKENS_A_STEP))
            decode_ms = workload.output_tokens * max(host_ms, place.modelled_decode_ms(workload.prompts, context))
            speed = workload.prompts * workload.output_tokens / (prefill_ms + decode_ms) * 1e3
            predictions.append(Prediction(name + "offline", "output tokens/s", page_speed, speed))
    return launch_us, predictions


def model_table(launch_us: float, predictions: list[Prediction]) -> list[str]:
    lines = [
        f"\nThe model against the page: {launch_us:.0f} us of host time a launch, fitted to the row so marked\n",
        "| row | figure | page | model | error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for p in predictions:
        error = "fitted" if p.fitted else f"{p.error:+.0%}"
        lines.append(f"| {p.row} | {p.figure} | {p.page:.1f} | {p.model:.1f} | {error} |")
    return lines


PREFACE = """# Fidelity of modelled time

Written by `python -m benchmarks brief --fidelity docs/fidelity.md`. Nothing here ran on a card: the only measurements
of hardware are the page's.

## What is modelled

A kernel takes a fixed time of launch and the longest of its bytes, its matrix operations and its vector operations,
each over the chip's peak (`chips.toml`) times a share that kernels reach (`emulator/src/core/cost.h`). A collective
begins when its last rank has come and takes a launch, the link's latency, and its bytes over the slowest link between
its ranks. Streams overlap freely. Host time is that of the machine that emulates, divided by the dilation.

Left out: contention between streams, the L2 cache, bank conflicts, throttling, the cost of HTTP.

## What it rests on

The shares of peak (`cost.h`), the links and the fixed cost of a launch (`chips.toml`, marked EST) are estimates that
nobody has measured on this chip. The page cannot calibrate them: at concurrency 1 both of its models take 2.0 ms
a layer, so those rows measure the host. What they give is the host's time for a launch, with the launches of the
incumbent counted on the emulator (release 0.29.0rc1; the page ran 0.18.0rc1, whose counts are not known).

## Errors
"""

AFTERWORD = """
Time per output token is what the model can speak of. It misses the page's time to first token and offline throughput
by factors. Their likely cause, read in that release's source and not measured: every layer of every prefill rebuilt a
`[tokens, max_model_len]` mask and waited for the device, which launches and bytes do not show.
"""


def fidelity_page(launch_us: float, predictions: list[Prediction], tables: list[str]) -> str:
    parts = [PREFACE, *model_table(launch_us, predictions), AFTERWORD]
    if tables:
        parts += ["## Ours, modelled, beside the page", *tables]
    return "\n".join(parts).rstrip() + "\n"
