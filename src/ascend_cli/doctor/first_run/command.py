"""`ascend doctor --first-run MODEL`: starts the steps, compares them, names the first that differs."""

from __future__ import annotations

import json as json_module
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ascend_cli.doctor.first_run.compare import CPU_TOLERANCE, Answer, Verdict, judge
from ascend_cli.doctor.first_run.steps import STEPS, Step, rounds
from ascend_cli.errors import BAD_ANSWER, OK, UsageError

SCHEMA = "ascend.first-run/1"
START_LIMIT_S = 3600.0  # of a step: weights of a large model are read in each
CPU_SHARE = 0.5  # of the host's free memory that the reference may take
CPU_ONLY = {"ASCEND_EMULATOR": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
ENGINE = {"max_model_len": 512, "max_num_seqs": 32, "max_num_batched_tokens": 2048, "gpu_memory_utilization": 0.8}

Start = Callable[[Step], Mapping[str, Any]]  # what engine.py answers


@dataclass
class StepResult:
    """What became of a step: the verdict of each of its parts, or why it did not run."""

    name: str
    verdicts: list[Verdict] = field(default_factory=list)
    failed: str = ""
    skipped: str = ""

    @property
    def first_difference(self) -> str:
        """Empty where everything was the same."""
        if self.failed:
            return f"{self.name}: {self.failed}"
        return next((f"{self.name}, {verdict.part}: {verdict.what}" for verdict in self.verdicts if verdict.what), "")


def first_run(model: str, output: Path | None, json: bool) -> int:
    """Run all steps, show what came of them; the exit code. Raises UsageError."""
    chips = chips_here()
    with tempfile.TemporaryDirectory(prefix="ascend-first-run-") as folder:
        work = Path(folder)
        results = run_steps(lambda step: start(model, step, work), lambda given: reference(model, given, work), chips)
    document = {
        "schema": SCHEMA,
        "model": model,
        "emulated": is_emulated(),
        "steps": [
            {"name": each.name, "failed": each.failed, "skipped": each.skipped, "parts": each.verdicts}
            for each in results
        ],
        "first_difference": first_difference(results),
    }
    if output is not None:
        from ascend_cli.output import to_json

        output.write_text(json_module.dumps(to_json(document), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _show(document, results, json)
    return BAD_ANSWER if document["first_difference"] else OK


def first_difference(results: list[StepResult]) -> str:
    return next((each.first_difference for each in results if each.first_difference), "")


def run_steps(
    start_step: Start, on_the_cpu: Callable[[Mapping[int, Answer]], tuple[dict[int, Answer], str]], chips: int
) -> list[StepResult]:
    """Every step in order; what follows one that could not run is tried too, for it tells which part is sick."""
    base: dict[int, Answer] = {}
    results = []
    for step in STEPS:
        result = StepResult(step.name)
        results.append(result)
        if step.chips > chips:
            result.skipped = f"needs {step.chips} chips, and here {'is' if chips == 1 else 'are'} {chips}"
            continue
        answered = start_step(step)
        if "failed" in answered:
            result.failed = str(answered["failed"])
            continue
        by_part = parts_of(answered["rounds"])
        if not base:
            base = by_part["one at a time"]
            result.verdicts += _against_cpu(base, on_the_cpu)
            by_part = {name: answers for name, answers in by_part.items() if name != "one at a time"}
        result.verdicts += [judge(name, answers, base) for name, answers in by_part.items()]
    return results


def parts_of(answered: list[Mapping[Any, Any]]) -> dict[str, dict[int, Answer]]:
    """Answers by the name of their round; of rounds of one name together."""
    parts: dict[str, dict[int, Answer]] = {}
    for (name, _), answers in zip(rounds(), answered, strict=True):
        parts.setdefault(name, {}).update({int(number): Answer.of(each) for number, each in answers.items()})
    return parts


def _against_cpu(
    base: dict[int, Answer], on_the_cpu: Callable[[Mapping[int, Answer]], tuple[dict[int, Answer], str]]
) -> list[Verdict]:
    part = "one at a time, against the CPU in float32"
    exact, why_not = on_the_cpu(base)
    if why_not:
        return [Verdict(f"{part} (left out: {why_not})", 0, 0.0)]
    verdict = judge(part, base, exact, CPU_TOLERANCE)
    if verdict.same:
        for number, answer in base.items():
            for position, token in zip(exact[number].positions, answer.tokens, strict=True):
                behind = max(position.values()) - position[str(token)]
                if behind > CPU_TOLERANCE:
                    what = f"prompt {number + 1}: token {token} is behind the CPU's choice by {behind:.2f}"
                    return [Verdict(part, len(base), verdict.worst, what)]
    return [verdict]


# ---------------------------------------------------------------- processes


def chips_here() -> int:
    """How many chips a process sees. Raises UsageError where it sees none."""
    program = "import torch, torch_npu; print('CHIPS', torch.npu.device_count())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    counts = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("CHIPS ")]
    if not counts or counts[0] == "0":
        raise UsageError("no chip can be used here: run `ascend doctor`")
    return int(counts[0])


def is_emulated() -> bool:
    from ascend_cli.hardware.host import is_emulated as answer

    return answer()


def start(model: str, step: Step, work: Path) -> Mapping[str, Any]:
    """The answers of one step's engine, in a process of its own."""
    from ascend_cli.output import notice

    notice(f"{step.name} ...")
    job, answers = work / "job.json", work / "answers.json"
    answers.unlink(missing_ok=True)
    job.write_text(json_module.dumps({"model": model, "engine": {**ENGINE, **step.engine}, "rounds": rounds()}))
    command = [sys.executable, "-m", "ascend_cli.doctor.first_run.engine", str(job), str(answers)]
    log = work / "log.txt"
    with log.open("w") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=START_LIMIT_S).returncode
        except subprocess.TimeoutExpired:
            return {"failed": f"no answer within {START_LIMIT_S / 60:.0f} minutes"}
    if answers.exists():
        found: Mapping[str, Any] = json_module.loads(answers.read_text())
        return found
    lines = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line or "error" in line]
    return {"failed": f"its process ended with {code}: {(lines or ['it said nothing'])[-1].strip()[:300]}"}


def reference(model: str, base: Mapping[int, Answer], work: Path) -> tuple[dict[int, Answer], str]:
    """What the CPU says to the same tokens, or why it was not asked."""
    needed, free = weight_bytes(Path(model)) * 2, free_bytes()
    if needed == 0:
        return {}, "the size of the weights is not known: give a folder"
    if needed > free * CPU_SHARE:
        return {}, f"float32 takes {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB of host memory are free"
    job, found = work / "reference.json", work / "exact.json"
    given = {number: {"prompt": list(each.prompt), "tokens": list(each.tokens)} for number, each in base.items()}
    job.write_text(json_module.dumps({"model": model, "answers": given}))
    command = [sys.executable, "-m", "ascend_cli.doctor.first_run.reference", str(job), str(found)]
    done = subprocess.run(command, env={**os.environ, **CPU_ONLY}, capture_output=True, text=True)
    if done.returncode != 0 or not found.exists():
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        return {}, f"transformers does not run it: {lines[-1][:200]}"
    positions = json_module.loads(found.read_text())
    exact = {number: Answer(each.prompt, each.tokens, positions[str(number)]) for number, each in base.items()}
    return exact, ""


def weight_bytes(folder: Path) -> int:
    """Of the weights in a folder, mostly of sixteen bits; 0 where there are none to be seen."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


# ---------------------------------------------------------------- what people see


def _show(document: Mapping[str, Any], results: list[StepResult], json: bool) -> None:
    from ascend_cli.output import console, emit_json

    if json:
        emit_json(document)
        return
    from rich.table import Table

    out = console()
    if document["emulated"]:
        out.print("The chips are emulated: nothing here is evidence of silicon.", style="yellow")
    table = Table("step", "part", "answers", "largest difference", "", title_justify="left")
    for result in results:
        if result.failed or result.skipped:
            table.add_row(result.name, "", "", "", result.failed or f"left out: {result.skipped}")
        for verdict in result.verdicts:
            table.add_row(
                result.name, verdict.part, str(verdict.answers), f"{verdict.worst:.3f}", verdict.what or "same"
            )
    out.print(table)
    if not document["first_difference"]:
        out.print("Every step gives the same, but for ties.")
        return
    out.print(f"First difference: {document['first_difference']}", markup=False, soft_wrap=True)
    name = document["first_difference"].split(":")[0].rpartition(",")[0] or document["first_difference"].split(":")[0]
    step = next((step for step in STEPS if name.startswith(step.name) or step.name.startswith(name)), STEPS[0])
    out.print(f"Look at docs/silicon.md: {step.rows}.", markup=False, soft_wrap=True)
