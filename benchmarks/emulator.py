"""The emulator's speed: host cost of a small operator, a model's decode, fp16 matmul, each beside plain CPU torch.

* small_op: an addition of 8 floats with the task queue off. "emulator" is what the emulated libraries take: the same C
  calls that torch_npu makes, made by a C loop. "torch_npu" is `a + b` as a user runs it, its Python and C++ dispatch
  included. "torch CPU" is the same addition without a chip, "empty loop" what Python's loop takes of both.
* decode: SmolLM2-135M-Instruct through transformers, the same tokens fed to every side.
* matmul: rows x inner x columns, as a Linear layer computes it, weights not in cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from ascend_cli.serving.decide import model_files
from benchmarks._bounds import Bound, print_bounds

HERE = Path(__file__).parent
PARTS = ("small_op", "decode", "matmul")
ROWS = (1, 8, 128, 1024)
# Inner and outer size: SmolLM2-135M's gate and up projection and output matrix, Qwen3-0.6B's gate and up projection.
LAYERS = ((576, 3072), (576, 49152), (1024, 6144))
LARGEST_WORK = 8e9  # multiply-adds of a case: 1,024 rows of an output matrix are what no engine computes
SMALL_OP_BOUND_US = 4.0
DECODE_BOUND = 1.2
FP16_BOUND = 1.0


def main(arguments: list[str]) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks emulator", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--chip", default="310P3")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="OpenMP threads, of every side")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that each side decodes (default: 64)")
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS), help="rows of the matmuls")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct (default: made from its wheel)")
    parser.add_argument("--json", type=Path, default=Path("emulator.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="emulator-speed-") as name:
        result = measure(Path(name), chosen)
    chosen.json.write_text(json.dumps(result, indent=1))
    for part in chosen.parts:
        print_table(part, result[part])
    print_bounds(bounds(result))
    print(f"\n{result['chip']}, {result['threads']} threads. Figures: {chosen.json}")
    return 0


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run _emulator_speed in a process with one emulated chip."""
    job: dict[str, Any] = {
        "parts": chosen.parts,
        "threads": chosen.threads,
        "tokens": chosen.tokens,
        "shapes": [
            (rows, inner, columns)
            for inner, columns in LAYERS
            for rows in chosen.rows
            if rows * inner * columns <= LARGEST_WORK
        ],
    }
    if "small_op" in chosen.parts:
        job["driver"] = str(folder / "small_op.so")
        compile_driver = ["cc", "-O2", "-shared", "-fPIC", "-o", job["driver"], str(HERE / "_small_op.c")]
        subprocess.run(compile_driver, check=True)
    if "decode" in chosen.parts:
        job["model"] = str(chosen.model or model_files("smollm2", hub="").folder)
    question, answer = folder / "job.json", folder / "result.json"
    question.write_text(json.dumps(job))
    with emulate(Settings(chip=chosen.chip, count=1)) as machine:
        environment = {"OMP_NUM_THREADS": str(chosen.threads), "TASK_QUEUE_ENABLE": "0"}
        command = [sys.executable, str(HERE / "_emulator_speed.py"), str(question), str(answer)]
        done = machine.run(command, env=environment, stdout=sys.stderr)
    if done.returncode or not answer.exists():
        raise SystemExit(f"The measurement failed with exit code {done.returncode}; its reason is printed above.")
    measured: dict[str, Any] = json.loads(answer.read_text())
    return measured


def print_table(part: str, rows: list[dict[str, Any]]) -> None:
    sides = list(dict.fromkeys(name for row in rows for name in row if name not in ("case", "rows")))
    print(f"\n{part + (', us' if part == 'small_op' else ', ms'):<24}" + "".join(f"{side:>14}" for side in sides))
    for row in rows:
        print(
            f"  {row['case']:<22}" + "".join(f"{row[side]:>14.3f}" if side in row else f"{'-':>14}" for side in sides)
        )


def bounds(result: dict[str, Any]) -> list[Bound]:
    small, tokens, products = (result.get(part, []) for part in PARTS)
    host = [row for row in small if row["case"].startswith("host")]

    def ratios(rows: list[dict[str, Any]], ours: str, other: str) -> list[tuple[str, float]]:
        return [(f"{ours}, {row['case']}", row[ours] / row[other]) for row in rows if other in row]

    return (
        [
            Bound(f"small operator, host us of {side}", SMALL_OP_BOUND_US, [(row["case"], row[side]) for row in host])
            for side in ("emulator", "torch_npu")
        ]
        + [
            Bound(f"decode, chip fp16 / {side}", DECODE_BOUND, ratios(tokens, "chip fp16", side))
            for side in ("CPU fp32", "CPU fp16", "CPU bf16")
        ]
        + [
            Bound(f"matmul, {ours} / {side}", FP16_BOUND, ratios(products, ours, side))
            for ours in ("chip fp16", "chip fp16 NZ")
            for side in ("chip fp32", "CPU fp32")
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
