"""Run architectures of the registry: one checkpoint, one engine start a chip, judged as the table's rows are."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from ascend_cli.errors import AscendError
from ascend_facts.model_results import ModelResult
from ascend_facts.refused import refusal
from ascend_facts.registry_results import UNBUILT, RegistryResult
from conformance.architectures import Architecture
from conformance.engine import versions
from conformance.places import Places
from conformance.prompts import Prompts, make_few_prompts, make_prompts
from conformance.registry.names import registered
from conformance.verify import COMMON_ENGINE, Verifier, is_routed

BUILD_TIMEOUT_S = 300
ENGINE_TIMEOUT_S = 300  # an engine takes 20 s; one that spins must not hold up all that come after it
SEQUENCES = 3  # at once: as many as there are prompts, and a graph for each power of two up to it
# Faults of what a kind of layer adds, then of attention; one that changes nothing in a model says nothing of it.
OF_KINDS = (
    *("dropped-sink", "swapped-latent", "shifted-convolution", "wrong-decay", "no-soft-cap", "shifted-window"),
    *("swapped-experts", "no-expert-bias", "unscaled-experts", "shifted-positions", "swapped-kv-heads", "rope-theta"),
)
# What a cell may go without in an answer that is right all the same.
EXCUSED = {
    "graphs were switched off for this model": "no graphs",
    "no graph was replayed": "no graphs",
    "no token came from the prefix cache": "no prefix cache",
}


class Runner:
    """Builds checkpoints in `cache` and runs them on emulated chips; logs go to `cache`/logs."""

    def __init__(self, places: Places, cache: Path, say: Callable[[str], None], seed: int = 0) -> None:
        self.places, self.cache, self.logs, self.say, self.seed = places, cache, cache / "logs", say, seed
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(
        self, name: str, chips: list[str], keep: Callable[[RegistryResult], None], faults: Sequence[str] = ()
    ) -> None:
        """One architecture on every chip; `keep` is called with each result. faults: try those that change it too."""
        kind, _, module = registered()[name]
        if (known := refusal(name, module)) is not None:  # as the engine does, from the same table
            notes = (UNBUILT,) if "architecture" not in self._build(name, only_describe=True) else ()
            for chip in chips:
                keep(self._result(name, kind, chip, "refused", known, notes=notes))
            return
        built = self._build(name)
        if "unbuildable" in built or "error" in built:
            outcome = "not built" if "unbuildable" in built else "neither"
            detail = built.get("unbuildable") or f"its checkpoint could not be made: {built['error']}"
            for chip in chips:
                keep(self._result(name, kind, chip, outcome, detail))
            return
        architecture = Architecture(**built["architecture"])
        verifier = self._verifier(architecture, make_few_prompts)
        for chip in chips:
            result = self._run_on(chip, verifier, kind)
            if result.outcome == "wrong" and is_routed(architecture):
                # One token near a tie goes to another expert, and a state carries that on for scores of tokens: of one
                # long prompt that is a share that only a fault should have. More prompts tell the two apart.
                result = self._run_on(chip, self._verifier(architecture, make_prompts), kind)
            if faults and result.outcome == "right":
                result = replace(result, faults=self._faults(verifier, chip, faults))
            keep(result)

    def _verifier(self, architecture: Architecture, make: Callable[[int, str, int], Prompts]) -> Verifier:
        prompts = make(architecture.vocab_size, architecture.task, self.seed)
        arguments = architecture, self.places, self.cache, self.logs, self.say, self.seed
        engine = {**COMMON_ENGINE, "max_num_seqs": SEQUENCES}
        return Verifier(*arguments, prompts=prompts, engine=engine, engine_timeout_s=ENGINE_TIMEOUT_S)

    def _faults(self, verifier: Verifier, chip: str, faults: Sequence[str]) -> dict[str, bool]:
        """Whether each fault that changes this model is caught."""
        found, checkpoint = {}, verifier.checkpoint()
        for fault in faults:
            try:
                found[fault] = verifier.catches(fault, checkpoint, chip).caught
            except AscendError as error:
                if "changes nothing" not in str(error):
                    raise
        return found

    def _build(self, name: str, only_describe: bool = False) -> dict[str, Any]:
        """What build.py says of the architecture; only_describe: without making its checkpoint."""
        with tempfile.TemporaryDirectory(prefix="ascend-registry-") as folder:
            output = Path(folder) / "built.json"
            job: dict[str, Any] = {"name": name, "directory": str(self.cache), "seed": self.seed, "output": str(output)}
            job["only_describe"] = only_describe
            job_file, log = Path(folder) / "job.json", self.logs / f"{name}-build.log"
            job_file.write_text(json.dumps(job))
            module = "conformance.registry.build"
            self.places.cpu().run(module, [str(job_file)], log, BUILD_TIMEOUT_S)
            if not output.is_file():
                lines = [line for line in log.read_text().splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
                return {"error": (lines or [f"no message, see {log.name}"])[-1][:300]}
            built: dict[str, Any] = json.loads(output.read_text())
            return built

    def _run_on(self, chip: str, verifier: Verifier, kind: str) -> RegistryResult:
        name = verifier.architecture.name
        start = "graph" if verifier.architecture.task == "generate" else "one"
        try:
            row = verifier.run(chip, settings=[start])
        except (AscendError, ValueError) as error:
            return self._result(name, kind, chip, "neither", str(error)[:300])
        outcome, detail, notes = outcome_of(row)
        numbers = [cell for cell in row.cells.values() if cell.typical is not None]
        return self._result(
            name,
            kind,
            chip,
            outcome,
            detail,
            notes=notes,
            dtype=row.dtype,
            typical=max((cell.typical or 0.0 for cell in numbers), default=None),
            worst=max((cell.worst or 0.0 for cell in numbers), default=None),
        )

    def _result(self, name: str, kind: str, chip: str, outcome: Any, detail: str, **more: Any) -> RegistryResult:
        today = date.today().isoformat()
        return RegistryResult(name, kind, chip, outcome, detail, date=today, versions=versions(), **more)


def outcome_of(row: ModelResult) -> tuple[str, str, tuple[str, ...]]:
    """(outcome, detail, notes) of one engine start's cells."""
    refused = [cell for cell in row.cells.values() if cell.outcome == "refused"]
    if refused:
        return "refused", refused[0].detail, ()
    notes, failed = [], []
    for cell in row.cells.values():
        if cell.outcome == "fails" and cell.detail in EXCUSED:
            notes.append(EXCUSED[cell.detail])
        elif cell.outcome == "fails":
            failed.append(cell)
    if not failed:
        return "right", "", tuple(dict.fromkeys(notes))
    judged = [cell for cell in failed if cell.typical is not None]
    return ("wrong", judged[0].detail, ()) if judged else ("neither", failed[0].detail, ())
