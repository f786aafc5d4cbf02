"""The record of steps: what was counted when somebody last looked, and what has moved since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from conformance.architectures import architectures
from tests.steps import cases

RECORD = Path(__file__).with_name("steps.json")
Counts = dict[str, dict[str, float]]  # by step, by counter


def read() -> Counts:
    counts: Counts = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return counts


def write(counts: Counts) -> None:
    RECORD.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def count(folder: Path, chips: list[str], engines: list[str]) -> Counts:
    """Every step of these engines on these chips, by "chip, engine, step". Raises RuntimeError if an engine fails."""
    checkpoints = _checkpoints(folder, engines)
    with ThreadPoolExecutor() as pool:
        of_chips = list(pool.map(lambda chip: _count_on(chip, folder, engines, checkpoints), chips))
    return {step: counters for counts in of_chips for step, counters in counts.items()}


def _count_on(chip: str, folder: Path, engines: list[str], checkpoints: dict[str, str]) -> Counts:
    job, answer = folder / f"{chip}.json", folder / f"{chip}-counts.json"
    job.write_text(json.dumps({"engines": engines, "checkpoints": checkpoints}))
    with emulate(Settings(chip=chip, count=2, clock="timing")) as machine:
        done = subprocess.run(
            [sys.executable, "-m", "tests.steps.engine", str(job), str(answer)],
            env={**os.environ, **machine.environment, "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    if not answer.exists():
        raise RuntimeError(f"{chip}: {done.stdout[-6000:]}")
    return {
        f"{chip}, {engine}, {step}": counters
        for engine, steps in json.loads(answer.read_text()).items()
        for step, counters in steps.items()
    }


def differences(known: Counts, counted: Counts) -> list[str]:
    """A sentence for each counter of a counted step that is not as recorded."""
    sentences = []
    for step, counters in counted.items():
        if step not in known:
            sentences.append(f"{step}: not recorded yet")
            continue
        for name, value in counters.items():
            before = known[step].get(name)
            if before != value:
                share = f" ({value / before - 1:+.1%})" if before else ""
                sentences.append(f"{step}: {name} {_figure(before)} -> {_figure(value)}{share}")
    return sentences


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:,.10g}"


def _checkpoints(folder: Path, engines: list[str]) -> dict[str, str]:
    """A checkpoint for each architecture, adapters beside those that need them; made by processes that see no chip."""
    wanted = {engine.architecture: False for engine in cases.ENGINES if engine.name in engines}
    for engine in cases.ENGINES:
        if engine.name in engines and engine.options.get("enable_lora"):
            wanted[engine.architecture] = True
    found = {}
    for name, with_adapters in wanted.items():
        job = folder / f"{name}.json"
        job.write_text(json.dumps({
            "architecture": name, "seed": 0, "directory": str(folder), "sequences": [], "dtypes": [],
            "output": str(folder / f"{name}.npz"),
        }))  # fmt: skip
        _run("conformance.reference", str(job))
        checkpoint = folder / architectures()[name].checkpoint_name(0)
        if with_adapters:
            _run("conformance.adapters", str(checkpoint))
        found[name] = str(checkpoint)
    return found


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)
