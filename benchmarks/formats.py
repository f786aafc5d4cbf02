"""Tokens a second of Qwen3 in float16 and in W8A8 on 310P3, modelled, beside the figures of vllm-ascend's nightly runs.

Ours is vLLM and this plugin, unmodified, on emulated chips under the clock "timing": a decode step replayed as a graph.
Layers are alike, so two engines with few layers give what a layer and what the rest of a step takes, and the whole
model follows. What a collective takes is the model's own figure: on emulated chips it would include the wait for the
last rank, which depends on this machine. The published figures are of W8A8SC weights on real cards (calibration.toml);
two of them are in the fit of the model of time. Nothing of ours ran on a card.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ascend_emulator import Settings
from ascend_emulator.launcher import emulate

from ascend_cli.registry.cards import find_model
from ascend_facts.chips import find
from ascend_facts.quantized_format import WeightFormat
from ascend_facts.roofline import Placement
from ascend_facts.time_model import collective_us
from benchmarks._calibration import read
from benchmarks._shapes import SHAPES, write_model

WORKER = Path(__file__).with_name("_formats_engine.py")
CHIP = "310P3"
LAYERS = (2, 4)
INPUT_TOKENS = 512
PROJECTIONS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj",
)  # fmt: skip
FORMATS: tuple[WeightFormat, ...] = ("fp16", "w8a8")


@dataclass(frozen=True)
class Case:
    """A model at the size and load of its nightly run."""

    model: str
    ranks: int
    requests: int


CASES = (Case("qwen3-8b", 1, 1), Case("qwen3-14b", 1, 1), Case("qwen3-32b", 4, 1), Case("qwen3-32b", 4, 8))


@dataclass(frozen=True)
class Step:
    """A decode step of the whole model."""

    model: str
    ranks: int
    requests: int
    weights: str
    step_ms: float
    floor_ms: float
    launches_a_layer: float
    launches_a_step: float
    by_task_ms: dict[str, float]

    @property
    def tokens_per_s(self) -> float:
        return 1e3 * self.requests / self.step_ms


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks formats", description=__doc__)
    models = sorted({case.model for case in CASES})
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 4], help="tensor-parallel sizes (default: 1 4)")
    parser.add_argument("--json", type=Path, default=Path("formats.json"), help="where the figures go")
    chosen = parser.parse_args(arguments)
    cases = [case for case in CASES if case.model in chosen.models and case.ranks in chosen.ranks]
    steps = measure(cases)
    chosen.json.write_text(
        json.dumps(
            {"schema": "ascend.benchmark.formats/1", "modelled": True, "steps": [asdict(s) for s in steps]}, indent=1
        )
    )
    print("\n".join(table(steps)))
    return 0


# ---------------------------------------------------------------------------------------------------------- our engines


def measure(cases: list[Case]) -> list[Step]:
    """Every case in every format; engines of one tensor-parallel size share a process that has imported everything."""
    found = []
    for ranks in dict.fromkeys(case.ranks for case in cases):
        of_ranks = [(case, weights) for case in cases if case.ranks == ranks for weights in FORMATS]
        with tempfile.TemporaryDirectory() as folder:
            jobs = [_job(Path(folder), case, weights, layers) for case, weights in of_ranks for layers in LAYERS]
            answers = _run(Path(folder), jobs, ranks)
        pairs = zip(answers[::2], answers[1::2], strict=True)
        found += [_step(case, weights, *pair) for (case, weights), pair in zip(of_ranks, pairs, strict=True)]
    return found


def _job(folder: Path, case: Case, weights: str, layers: int) -> dict[str, Any]:
    model = write_model(folder / f"{case.model}-{weights}-{layers}", case.model, layers)
    if weights == "w8a8":
        names = [f"model.layers.{layer}.{name}.weight" for layer in range(layers) for name in PROJECTIONS]
        kinds = {"model_quant_type": "W8A8", **dict.fromkeys(names, "W8A8")}
        (model / "quant_model_description.json").write_text(json.dumps(kinds))
    options = {
        "model": str(model), "load_format": "dummy", "skip_tokenizer_init": True, "dtype": "float16",
        "max_model_len": 1024, "max_num_seqs": 8, "tensor_parallel_size": case.ranks, "enable_prefix_caching": False,
        "disable_log_stats": True, **({"quantization": "ascend"} if weights == "w8a8" else {}),
    }  # fmt: skip
    return {"options": options, "requests": case.requests, "input_tokens": INPUT_TOKENS}


def _run(folder: Path, jobs: list[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
    job_file, answer_file = folder / "jobs.json", folder / "answers.json"
    job_file.write_text(json.dumps(jobs))
    with emulate(Settings(chip=CHIP, count=max(ranks, 2), clock="timing")) as machine:
        environment = {**os.environ, **machine.environment, "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(WORKER), str(job_file), str(answer_file)]
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    answers: list[dict[str, Any]] = json.loads(answer_file.read_text())
    return answers


def _step(case: Case, weights: WeightFormat, few: dict[str, Any], more: dict[str, Any]) -> Step:
    """The whole model's step from those of few and of more layers."""
    layers: int = SHAPES[case.model]["num_hidden_layers"]
    per_layer = 1 / (LAYERS[1] - LAYERS[0])

    def whole(kind: str, name: str) -> float:
        low: float = few[kind].get(name, 0.0)
        high: float = more[kind].get(name, 0.0)
        return low + (high - low) * per_layer * (layers - LAYERS[0])

    modeled = {name: whole("modeled_ns", name) / 1e6 for name in more["modeled_ns"] if not name.startswith("Hccl")}
    chip = find(CHIP)
    message = case.requests * SHAPES[case.model]["hidden_size"] * 2
    each_us = collective_us(chip, chip.link_of(case.ranks), "all_reduce", case.ranks, message)
    for name in more["launches"]:
        if name.startswith("Hccl"):
            modeled[name] = whole("launches", name) * each_us / 1e3
    launches = {kind: sum(answer["launches"].values()) for kind, answer in (("few", few), ("more", more))}
    a_layer = (launches["more"] - launches["few"]) * per_layer
    place = Placement(find_model(case.model).shape, chip, case.ranks, weights)
    return Step(
        model=case.model,
        ranks=case.ranks,
        requests=case.requests,
        weights=weights,
        step_ms=sum(modeled.values()),
        floor_ms=place.decode_floor_ms(case.requests, INPUT_TOKENS),
        launches_a_layer=a_layer,
        launches_a_step=launches["few"] - a_layer * LAYERS[0],
        by_task_ms={name: ms for name, ms in sorted(modeled.items(), key=lambda item: -item[1]) if ms > 0},
    )


# --------------------------------------------------------------------------------------------------------------- tables


def table(steps: list[Step]) -> list[str]:
    lines = [
        f"\nDecode on {CHIP} in modelled time, graphs, {INPUT_TOKENS} tokens of context\n",
        "| model | chips | requests | weights | ms a step | floor | tokens/s | of float16 | vllm-ascend on cards | "
        "launches a layer | a step |",
        "|" + " --- |" * 11,
    ]
    for step in steps:
        same = (step.model, step.ranks, step.requests)
        plain = next(
            other for other in steps if (other.model, other.ranks, other.requests, other.weights) == (*same, "fp16")
        )
        published = _published(step)
        lines.append(
            f"| {step.model} | {step.ranks} | {step.requests} | {step.weights} | {step.step_ms:.1f} | "
            f"{step.floor_ms:.1f} | {step.tokens_per_s:.1f} | {step.tokens_per_s / plain.tokens_per_s:.2f} | "
            f"{'-' if published is None else f'{published:.1f}'} | {step.launches_a_layer:g} | "
            f"{step.launches_a_step:g} |"
        )
    for step in steps:
        held = ", ".join(f"{name} {ms:.2f}" for name, ms in list(step.by_task_ms.items())[:7])
        lines.append(f"\n{step.model}, {step.ranks} chips, {step.requests} at once, {step.weights}, ms a step: {held}")
    return lines


def _published(step: Step) -> float | None:
    """Output tokens a second of the nightly run at the same size and load, which include its prompts."""
    for row in read().rows:
        facts = row.facts
        same = (facts.get("model"), facts.get("ranks"), facts.get("requests"), facts.get("weights"), facts["chip"])
        if same == (step.model, step.ranks, step.requests, step.weights, CHIP) and row.figure == "output_tokens_per_s":
            return row.measured
    return None
