"""Host time, launches, copies and waits of a decode step, against vllm-ascend 0.29.0rc1 on the same emulated chip.

Both sides run the same shapes with dummy weights on an emulated 310P3 that computes nothing (clock "skip"), so what is
left is the host's work. Ours is vLLM 0.32 with this plugin; theirs is vLLM 0.29.0 with vllm-ascend 0.29.0rc1,
unmodified, in its 310P mode, at its best setting: full decode graphs with compilation mode 0. Both have torch and
torch_npu 2.13 (their pin is 2.10), the same graph sizes, block size and TASK_QUEUE_ENABLE. Both engines live at once
and take turns of some steps; who is not measured is stopped. They start one after the other.

Counts are exact. Times are of this machine: read the ratio, not the milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from benchmarks._live_engines import LiveEngine, live_engine
from benchmarks._shapes import SHAPES, write_model
from benchmarks._steady_state import quantiles_ms

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("_decode_steps.py")
INCUMBENT = ROOT / ".venv-incumbent" / "bin" / "python"
SIDES = {"ours": Path(sys.executable), "theirs": INCUMBENT}
MODES = ("eager", "graph")
LAYERS = {"qwen3-32b": 16}  # of 64: with all of them the weights of one chip would not fit its 43 GiB
BLOCK_SIZE = 128
PROMPT_TOKENS = 32
MAX_MODEL_LEN = 1024
TURNS = 5  # of each side for each number of requests
# What the issue of these figures sets as the most that ours may be of theirs.
HOST_TIME_BOUND = 0.7
STARTUP_BOUND = 0.5


COMPARED = ("smollm2", "qwen3-0.6b", "qwen3-32b")  # unless asked otherwise


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks host_overhead", description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(COMPARED))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--steps", type=int, default=100, help="decode steps to measure (default: 100)")
    parser.add_argument("--layers", type=int, help="layers of every shape (default: all, 16 of the 32B's 64)")
    parser.add_argument("--chip", default="310P3")
    parser.add_argument("--clock", default="skip", help="the emulator's clock (default: skip, which computes nothing)")
    parser.add_argument("--json", type=Path, default=Path("host_overhead.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    if "theirs" in chosen.sides and not INCUMBENT.exists():
        print("Set the incumbent up first: python3.11 scripts/setup_incumbent.py", file=sys.stderr)
        return 2
    runs: list[dict[str, Any]] = []
    for shape in chosen.shapes:
        layers = chosen.layers or LAYERS.get(shape) or SHAPES[shape]["num_hidden_layers"]
        for mode in chosen.modes:
            print(f"{shape}, {layers} layers, {mode} ...", file=sys.stderr, flush=True)
            for side, measured in measure(shape, layers, mode, chosen).items():
                runs.append({"side": side, "shape": shape, "layers": layers, "mode": mode, **measured})
            chosen.json.write_text(json.dumps({"clock": chosen.clock, "chip": chosen.chip, "runs": runs}, indent=1))
    print_tables(runs)
    print(f"\nFigures: {chosen.json}")
    return 0


def measure(shape: str, layers: int, mode: str, chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each side's start-up and, for each number of requests, the host time of a step and the counters of all steps."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="host-overhead-")))
        options = engine_options(folder, shape, layers, mode, chosen)
        engines = {side: stack.enter_context(engine(side, options, folder / side, chosen)) for side in chosen.sides}
        measured = {side: {**its.ready, "decode": {}} for side, its in engines.items()}
        for requests in chosen.requests:
            for side, decode in decode_in_turns(engines, requests, chosen.steps).items():
                measured[side]["decode"][requests] = decode
    return measured


def decode_in_turns(engines: dict[str, LiveEngine], requests: int, steps: int) -> dict[str, dict[str, Any]]:
    for its in engines.values():
        its.ask({"decode": requests})
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in engines}
    for _ in range(TURNS):
        for side, its in engines.items():
            turns[side].append(its.ask({"steps": steps // TURNS}))
    results = {}
    for side, its in engines.items():
        seconds = {name: [value for turn in turns[side] for value in turn[name]] for name in turns[side][0]}
        results[side] = {
            "steps": len(seconds["walls_s"]),
            "wall_ms": quantiles_ms(seconds["walls_s"]),
            "engine_thread_cpu_ms": quantiles_ms(seconds["cpus_s"]),
            "process_cpu_ms": quantiles_ms(seconds["processes_s"]),
            "counters": its.ask({"stop": True}),
        }
    return results


def engine_options(folder: Path, shape: str, layers: int, mode: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Options of vllm.LLM, the same for both sides."""
    largest = max(chosen.requests)
    options: dict[str, Any] = {
        "model": str(write_model(folder / "model", shape, layers)),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "float16",
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": largest,
        "max_num_batched_tokens": max(MAX_MODEL_LEN, largest * PROMPT_TOKENS),
        "block_size": BLOCK_SIZE,
        "enforce_eager": mode == "eager",
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }
    if mode == "graph":
        options["compilation_config"] = {
            "mode": 0,
            "cudagraph_mode": "FULL_DECODE_ONLY",
            "cudagraph_capture_sizes": sorted(chosen.requests),
        }
    return options


@contextmanager
def engine(side: str, options: dict[str, Any], folder: Path, chosen: argparse.Namespace) -> Iterator[LiveEngine]:
    """A side's engine, ready, on a machine of its own; it is killed at the end."""
    job = {"options": options, "prompt_tokens": PROMPT_TOKENS}
    environment = {"BENCHMARK_STARTED_AT": str(time.time()), "OMP_NUM_THREADS": "1"}
    with (
        emulate(Settings(chip=chosen.chip, count=1, clock=chosen.clock)) as machine,
        live_engine(machine.popen, SIDES[side], WORKER, job, folder, environment) as its,
    ):
        yield its


def per_step(decode: dict[str, Any]) -> dict[str, float]:
    """The figures of one decode step that are compared."""
    counters, steps = decode["counters"], decode["steps"]
    copies, waits = counters["copies"], counters["synchronizations"]
    return {
        "host ms": decode["wall_ms"]["median"],
        "host CPU ms": decode["engine_thread_cpu_ms"]["median"],
        "launches": counters["launches_total"] / steps,
        "in graphs": counters["graph_launches_total"] / steps,
        "device ops": (counters["launches_total"] + counters["graph_launches_total"]) / steps,
        "H2D": copies["host_to_device"]["count"] / steps,
        "D2H": copies["device_to_host"]["count"] / steps,
        "stream syncs": (waits["stream"] + waits["device"] + waits["blocking_copy"]) / steps,
        "event syncs": waits["event"] / steps,
        "event waits": counters["events"]["waits"] / steps,
    }


def startup(run: dict[str, Any]) -> dict[str, float]:
    waits = run["startup"]["synchronizations"]
    return {
        "ready s": run["startup_s"],
        "of it imports s": run["import_s"],
        "CPU s": run["startup_cpu_s"],
        "waits": waits["total"],
        "blocking copies": waits["blocking_copy"],
        "KV blocks": run["kv_blocks"],
    }


def print_tables(runs: list[dict[str, Any]]) -> None:
    """Both sides of each configuration side by side, with ratios; a single side alone."""
    for run in runs:
        if run["side"] != "ours" and any(is_other_side(run, other) for other in runs):
            continue  # printed with ours
        theirs = next((other for other in runs if is_other_side(run, other)), None)
        title = f"{run['shape']}, {run['layers']} layers, {run['mode']}"
        print(f"\n{title}")
        print_table("start-up", startup(run), theirs and startup(theirs), run["side"])
        for requests, decode in run["decode"].items():
            other = theirs and per_step(theirs["decode"][requests])
            print_table(f"decode step, {requests} requests", per_step(decode), other, run["side"])
    if {run["side"] for run in runs} == set(SIDES):
        print_bounds(runs)


def is_other_side(run: dict[str, Any], other: dict[str, Any]) -> bool:
    return run["side"] != other["side"] and all(run[key] == other[key] for key in ("shape", "layers", "mode"))


def print_table(title: str, one: dict[str, float], other: dict[str, float] | None, side: str) -> None:
    names = ["ours", "theirs", "ratio"] if other else [side]
    print(f"  {title:<28}" + "".join(f"{name:>10}" for name in names))
    for name, value in one.items():
        cells = [value]
        if other:
            cells += [other[name], value / other[name] if other[name] else float("nan")]
        print(f"    {name:<26}" + "".join(f"{cell:>10.2f}" if cell == cell else f"{'-':>10}" for cell in cells))


def print_bounds(runs: list[dict[str, Any]]) -> None:
    """Each bound with the worst case of this run against it."""
    pairs = [(run, other) for run in runs if run["side"] == "ours" for other in runs if is_other_side(run, other)]
    steps = [
        (f"{ours['shape']} {ours['mode']} {requests}", per_step(decode), per_step(theirs["decode"][requests]))
        for ours, theirs in pairs
        for requests, decode in ours["decode"].items()
    ]
    starts = [(f"{a['shape']} {a['mode']}", a["startup_s"] / b["startup_s"]) for a, b in pairs]
    checks = [
        ("host time of a step / theirs", HOST_TIME_BOUND, [(at, a["host ms"] / b["host ms"]) for at, a, b in steps]),
        ("device ops of a step / theirs", 1, [(at, a["device ops"] / b["device ops"]) for at, a, b in steps]),
        ("H2D copies of a step", 3, [(at, a["H2D"]) for at, a, _ in steps]),
        ("stream syncs of a step", 0, [(at, a["stream syncs"]) for at, a, _ in steps]),
        ("event syncs of a step", 1, [(at, a["event syncs"]) for at, a, _ in steps]),
        ("start-up / theirs", STARTUP_BOUND, starts),
    ]
    print(f"\n{'bound':<34}{'at most':>9}{'worst':>9}")
    for name, bound, cases in checks:
        at, worst = max(cases, key=lambda case: case[1])
        verdict = "met" if worst <= bound else f"MISSED at {at}"
        print(f"{name:<34}{bound:>9.2f}{worst:>9.2f}  {verdict}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
