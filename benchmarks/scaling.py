"""How the cost of a decode step grows with batch, context and layers, and where start-up spends its time.

The chip computes nothing (clock "skip"), so a step costs what the host does: that is what must not grow with
max_model_len or with requests that only wait. Operations and copied bytes are exact; times are of this machine.
Start-up is of an engine with the same shape, and of `ascend serve smollm2`, which computes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from benchmarks._bounds import Bound, print_bounds
from benchmarks._shapes import SHAPES, write_model

WORKER = Path(__file__).with_name("_scaling_engine.py")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (1024, 2048, 4096, 8192, 16384, 32000)
LAYERS = (4, 8, 16)  # and the shape's own number
LONG, SHORT = 32768, 2048  # max_model_len
FEW, MANY = 8, 256  # requests
CONTEXT_REQUESTS = 4  # as many contexts of 32k as a 310P3 holds beside the weights of any shape
PROMPT_TOKENS = 64
SERVE_BOUND_S = 15.0
SERVE_LIMIT_S = 300


def main(arguments: list[str]) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaling", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="layers of the largest model (default: the shape's)")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--contexts", nargs="+", type=int, default=list(CONTEXTS), help="tokens")
    parser.add_argument("--steps", type=int, default=50, help="decode steps to measure in each case (default: 50)")
    parser.add_argument("--parts", nargs="+", choices=("steps", "serve"), default=["steps", "serve"])
    parser.add_argument("--chip", default="310P3")
    parser.add_argument("--json", type=Path, default=Path("scaling.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    result: dict[str, Any] = {"shape": chosen.shape, "chip": chosen.chip}
    if "steps" in chosen.parts:
        result["engines"] = run_engines(chosen)
    if "serve" in chosen.parts:
        print("ascend serve smollm2, cold and warm ...", file=sys.stderr, flush=True)
        result["serve_ready_s"] = [serve_ready_s(chosen.chip) for _ in range(2)]
    chosen.json.write_text(json.dumps(result, indent=1))
    report(result)
    print(f"\nFigures: {chosen.json}")
    return 0


def run_engines(chosen: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """One engine for batches and contexts, and one for each thing that it is compared with."""
    layers = chosen.layers or SHAPES[chosen.shape]["num_hidden_layers"]
    few = {"requests": FEW, "prompt_tokens": PROMPT_TOKENS, "waiting": 0}
    batches = [few | {"requests": requests} for requests in chosen.batches]
    contexts = [few | {"requests": CONTEXT_REQUESTS, "prompt_tokens": tokens} for tokens in chosen.contexts]
    plans = {
        "all": (layers, LONG, MANY, batches + contexts + [few]),
        "short max_model_len": (layers, SHORT, MANY, [few]),
        "waiting requests": (layers, LONG, FEW, [few, few | {"waiting": MANY - FEW}]),
        **{f"{fewer} layers": (fewer, LONG, MANY, [few]) for fewer in LAYERS if fewer < layers},
    }
    engines = {}
    for name, (its_layers, length, at_once, cases) in plans.items():
        print(f"{chosen.shape}, {name} ...", file=sys.stderr, flush=True)
        engines[name] = {"layers": its_layers} | run_engine(chosen, its_layers, length, at_once, cases)
    return engines


def run_engine(
    chosen: argparse.Namespace, layers: int, max_model_len: int, max_num_seqs: int, cases: list[dict[str, int]]
) -> dict[str, Any]:
    """The result of _scaling_engine with one emulated chip that computes nothing."""
    options = {
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "float16",
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": 8192,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        options["model"] = str(write_model(folder / "model", chosen.shape, layers))
        job, result = folder / "job.json", folder / "result.json"
        job.write_text(json.dumps({"options": options, "steps": chosen.steps, "cases": cases}))
        with emulate(Settings(chip=chosen.chip, count=1, clock="skip")) as machine:
            environment = {"BENCHMARK_STARTED_AT": str(time.time()), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, str(WORKER), str(job), str(result)]
            done = machine.run(command, env=environment, capture_output=True, text=True)
        if not result.exists():
            raise SystemExit(f"An engine failed:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
        measured: dict[str, Any] = json.loads(result.read_text())
        return measured


def serve_ready_s(chip: str) -> float:
    """Seconds until `ascend serve smollm2` answers. Raises SystemExit if it ends or does not within SERVE_LIMIT_S."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ascend = Path(sys.executable).with_name("ascend")
    command = [str(ascend), "serve", "smollm2", "--", "--port", str(port), "--host", "127.0.0.1"]
    with tempfile.TemporaryFile() as log, emulate(Settings(chip=chip, count=1)) as machine:
        started = time.monotonic()
        process = machine.popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while time.monotonic() - started < SERVE_LIMIT_S and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        return time.monotonic() - started
                except OSError:
                    time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(60)
        log.seek(0)
        raise SystemExit(f"ascend serve was not ready:\n{log.read()[-6000:].decode(errors='replace')}")


def report(result: dict[str, Any]) -> None:
    bounds = []
    if "engines" in result:
        bounds += report_steps(result["engines"])
    if "serve_ready_s" in result:
        cold, warm = result["serve_ready_s"]
        print(f"\nascend serve smollm2: ready after {cold:.1f} s, and again after {warm:.1f} s")
        bounds.append(Bound("ascend serve ready, warm, s", SERVE_BOUND_S, [("smollm2", warm)]))
    print_bounds(bounds)


def report_steps(engines: dict[str, dict[str, Any]]) -> list[Bound]:
    main_cases = engines["all"]["cases"]
    batches = [case for case in main_cases[:-1] if case["prompt_tokens"] == PROMPT_TOKENS]
    contexts = [case for case in main_cases[:-1] if case["prompt_tokens"] != PROMPT_TOKENS]
    few = main_cases[-1]
    by_layers = sorted((engine["layers"], engine["cases"][0]) for name, engine in engines.items() if "layers" in name)
    by_layers.append((engines["all"]["layers"], few))
    print_growth("requests", [(case["requests"], case) for case in batches])
    print_growth(f"context of {CONTEXT_REQUESTS} requests", [(case["prompt_tokens"], case) for case in contexts])
    print_growth(f"layers, {FEW} requests", by_layers)
    alone, crowded = engines["waiting requests"]["cases"]
    pairs = {
        f"max_model_len {LONG} / {SHORT}": (few, engines["short max_model_len"]["cases"][0]),
        f"{MANY - FEW} / 0 requests waiting": (crowded, alone),
        f"max_num_seqs {MANY} / {FEW}": (few, alone),
    }
    print(f"\n{f'{FEW} requests':<34}{'host ms':>10}{'device ops':>12}{'H2D bytes':>12}   (ratios)")
    for name, (more, less) in pairs.items():
        cells = [more[key] / less[key] for key in ("wall_ms", "device_ops", "h2d_bytes")]
        print(f"  {name:<32}{cells[0]:>10.2f}{cells[1]:>12.2f}{cells[2]:>12.2f}")
    print("\nstart-up, s")
    for name, engine in engines.items():
        print(f"  {name:<22}" + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in engine["startup"].items()))

    def ratios(key: str) -> list[tuple[str, float]]:
        return [(name, more[key] / less[key]) for name, (more, less) in pairs.items()]

    return [
        Bound("device ops, longer or more crowded", 1.0, ratios("device_ops")),
        Bound("H2D bytes, longer or more crowded", 1.0, ratios("h2d_bytes")),
    ]


def print_growth(title: str, cases: list[tuple[int, dict[str, Any]]]) -> None:
    """One line a case, then the straight line through the host times and the farthest that a case lies from it."""
    print(f"\n{title:<34}{'host ms':>10}{'CPU ms':>10}{'device ops':>12}{'H2D':>6}{'H2D bytes':>12}")
    for size, case in cases:
        cells = f"{case['wall_ms']:>10.3f}{case['cpu_ms']:>10.3f}"
        print(f"  {size:<32}{cells}{case['device_ops']:>12.1f}{case['h2d_copies']:>6.1f}{case['h2d_bytes']:>12.0f}")
    if len(cases) < 3:
        return
    sizes, times = np.array([size for size, _ in cases]), np.array([case["wall_ms"] for _, case in cases])
    slope, constant = np.polyfit(sizes, times, 1)
    residual = np.abs(times - (constant + slope * sizes)) / times
    worst = int(residual.argmax())
    print(f"  {constant:.3f} ms + {slope * 1e3:.3f} us each; farthest: {residual[worst]:.0%} at {sizes[worst]}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
