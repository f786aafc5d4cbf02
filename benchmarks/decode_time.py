"""A decode step in the chip's modelled time, here and in another checkout: did a change cost the chip anything?

Both sides have the same vLLM and the same emulator; the other one gives the plugin only, and runs without the rules of
silicon, which it may not know. Nothing is computed, so weights are not needed, and the machine's load does not matter.
Time is of a chip's own operators: what it waits for other ranks is decided by the host.
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

from benchmarks._shapes import SHAPES, write_model

WORKER = Path(__file__).with_name("_decode_time_engine.py")
LIMIT = 0.03  # by which a step may be slower


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks decode_time", description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="a checkout of another commit")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="default: the shape's")
    parser.add_argument("--chip", default="310P3")
    parser.add_argument("--ranks", type=int, default=1, help="tensor parallelism")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--json", type=Path, default=Path("decode_time.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    here = decode(chosen, None)
    other = decode(chosen, chosen.against) if chosen.against else {}
    chosen.json.write_text(json.dumps({"shape": chosen.shape, "chip": chosen.chip, "here": here, "there": other}))
    slower = [show(requests, here[requests], other.get(requests)) for requests in here]
    return 1 if any(share > LIMIT for share in slower) else 0


def decode(chosen: argparse.Namespace, checkout: Path | None) -> dict[str, dict[str, float]]:
    """Costs of a step by number of requests, of the plugin in `checkout`, or of this one."""
    with tempfile.TemporaryDirectory(prefix="ascend-decode-") as folder:
        model = write_model(Path(folder) / "model", chosen.shape, chosen.layers)
        job, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        options: dict[str, Any] = {
            "model": str(model), "load_format": "dummy", "dtype": "float16", "tensor_parallel_size": chosen.ranks,
            "max_model_len": 1024, "max_num_batched_tokens": 512, "max_num_seqs": max(chosen.requests),
            "kv_cache_memory_bytes": 512 << 20, "enable_prefix_caching": False, "skip_tokenizer_init": True,
        }  # fmt: skip
        job.write_text(json.dumps({"options": options, "prompt_tokens": 64, "requests": chosen.requests}))
        with emulate(Settings(chip=chosen.chip, count=chosen.ranks, clock="timing")) as machine:
            environment = {**os.environ, **machine.environment, "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
            if checkout is not None:
                environment |= {"PYTHONPATH": str(checkout / "src"), "ASCEND_EMULATOR_RULES": "none"}
            done = subprocess.run(
                [sys.executable, str(WORKER), str(job), str(answer)], env=environment, cwd=folder,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        if not answer.exists():
            raise RuntimeError(f"The engine ended with {done.returncode}: {done.stdout[-4000:]}")
        found: dict[str, dict[str, float]] = json.loads(answer.read_text())
        return found


def show(requests: str, here: dict[str, float], other: dict[str, float] | None) -> float:
    """Print a step of both sides; answer by what share it is slower here."""
    print(f"decode {requests}, here:  " + ", ".join(f"{value:.6g} {name}" for name, value in here.items()))
    if other is None:
        return 0.0
    share = here["ms"] / other["ms"] - 1
    print(f"decode {requests}, there: " + ", ".join(f"{value:.6g} {name}" for name, value in other.items()))
    print(f"decode {requests}: {share:+.2%}")
    return share


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
