"""Verify architectures on chips: few engine starts, many checks, every answer against transformers in fp32.

For each model and chip: the engine answers the prompts (and its own continuations) in some configurations, then the
reference is run on exactly those tokens (teacher forcing), so that one early near-tie does not spoil the rest.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ascend_cli.errors import AscendError
from ascend_facts.model_results import Cell, ModelResult, Outcome, Trial
from conformance import faults, media
from conformance.architectures import FACTS, Architecture
from conformance.compare import Verdict, errors, judge
from conformance.engine import versions
from conformance.forks import TIMED_OUT
from conformance.places import Place, Places
from conformance.prompts import ADAPTERS, CHUNK_TOKENS, NEW_TOKENS, Prompts, make_covering_prompts, make_prompts

Arrays = Mapping[str, np.ndarray]
Answered = tuple[int, tuple[int, ...]]  # a sequence: its LoRA adapter's number (0: none) and its tokens
HERE = "this computer"  # in the place of an emulated chip's name
ENGINE_TIMEOUT_S = 900
REFERENCE_TIMEOUT_S = 600
NO_GRAPHS, NO_REPLAY = "graphs were switched off for this model", "no graph was replayed"

COMMON_ENGINE = {
    "max_model_len": 512,
    "max_num_batched_tokens": CHUNK_TOKENS,
    "max_num_seqs": 8,
    "kv_cache_memory_bytes": 256 << 20,
    "enable_prefix_caching": True,
}


@dataclass(frozen=True)
class Setting:
    """One engine start and the features it answers for."""

    name: str
    engine: Mapping[str, Any]
    features: tuple[str, ...]
    covering: bool = False  # the prompts have every token in them
    adapters: bool = False  # sequences take turns in LoRA adapters


# What only some architectures are started with; their names are in `extras` of architectures.toml.
EXTRAS = {
    "ngram": Setting(
        "ngram",
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 3,
                "prompt_lookup_min": 1,
                "prompt_lookup_max": 2,
            }
        },
        ("n-gram",),
        covering=True,
    ),
    "mtp": Setting("mtp", {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}, ("MTP",)),
    "lora": Setting("lora", {"enable_lora": True, "max_loras": ADAPTERS, "max_lora_rank": 8}, ("LoRA",), adapters=True),
}


def settings_for(architecture: Architecture) -> list[Setting]:
    if architecture.task != "generate":
        # An encoder sees a text whole: the budget of a step is the longest text, and nothing is reused.
        whole = {"max_num_batched_tokens": COMMON_ENGINE["max_model_len"], "enable_prefix_caching": False}
        return [
            Setting("one", whole, ("pooling",)),
            Setting("tp2", {**whole, "tensor_parallel_size": 2}, ("TP 2",)),
        ]
    if architecture.media:
        limits = {kind: architecture.processor.get("several", 2) for kind in architecture.media}
        images = {"limit_mm_per_prompt": limits, "mm_processor_cache_gb": 0.1}
        graph: tuple[str, ...] = ("prefill", "chunked prefill", "prefix cache", "decode, graph")
        if not make_long_prompts(architecture):
            graph = ("prefill", "decode, graph")
        return [
            Setting("graph", images, graph),
            Setting("tp2", {**images, "tensor_parallel_size": 2}, ("TP 2",)),
        ] + [EXTRAS[name] for name in architecture.extras]
    graph = ("prefill", "chunked prefill", "prefix cache", "decode, graph")
    chosen = [
        Setting("graph", {}, graph),
        Setting("eager", {"enforce_eager": True}, ("decode, eager",)),
        Setting("tp2", {"tensor_parallel_size": 2}, ("TP 2",)),
    ]
    if is_routed(architecture):
        chosen.append(Setting("ep2", {"tensor_parallel_size": 2, "enable_expert_parallel": True}, ("EP 2",)))
    return chosen + [EXTRAS[name] for name in architecture.extras]


def make_long_prompts(architecture: Architecture) -> bool:
    return bool(architecture.processor.get("long", True))


def is_routed(architecture: Architecture) -> bool:
    """Whether rounding may pick another expert."""
    return any(re.search(r"expert|moe", name) and value for name, value in architecture.text_config.items())


@dataclass
class Answer:
    """What one engine start gave: the child's report and its arrays."""

    report: dict[str, Any]
    arrays: Mapping[str, np.ndarray]
    replays: int | None = None  # of graphs; None where nothing counts them


class Verifier:
    """Runs engines and references for one architecture; checkpoints are cached in `cache`, logs go to `logs`."""

    def __init__(
        self,
        architecture: Architecture,
        places: Places,
        cache: Path,
        logs: Path,
        say: Callable[[str], None],
        seed: int = 0,
        prompts: Prompts | None = None,
        engine: Mapping[str, Any] | None = None,
        engine_timeout_s: int = ENGINE_TIMEOUT_S,
    ):
        """prompts, engine: in the place of those of the table's rows."""
        self.engine_timeout_s = engine_timeout_s
        self.common_engine = COMMON_ENGINE if engine is None else engine
        self.architecture, self.places = architecture, places
        self.cache, self.logs, self.say, self.seed = cache, logs, say, seed
        self.prompts = prompts or make_prompts(architecture.vocab_size, architecture.task, seed)
        if architecture.media:
            self.prompts = media.make_prompts(architecture, seed)
        self._answered: dict[tuple[str, Answered], np.ndarray] = {}  # by the reference, in each dtype
        for folder in (cache, logs):
            folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        chip: str | None,
        with_faults: bool = False,
        settings: Sequence[str] | None = None,
        known: Collection[str] = (),
        keep: Callable[[ModelResult], None] = lambda result: None,
    ) -> ModelResult:
        """Verify on one chip; `settings` limits the engine starts by name, `known` names features to leave alone.

        `keep` is called with all results so far after every engine start: what comes later may crash.
        """
        architecture = self.architecture
        checkpoint = self.checkpoint()
        result = ModelResult(architecture.name, architecture.group, chip or HERE)
        result.architecture = architecture.engine_class or architecture.model_class
        for setting in settings_for(architecture):
            if (settings and setting.name not in settings) or set(setting.features) <= set(known):
                continue
            if setting.name in architecture.impossible:
                cell = Cell("impossible", architecture.impossible[setting.name], date=date.today().isoformat())
                result.cells.update(dict.fromkeys(setting.features, cell))
                continue
            answer = self.engine(checkpoint, chip, setting)
            self._add_cells(result, setting, answer)
            keep(result)
            if self._refuses_model(setting, answer.report):
                break  # the other settings run the same model on the same chip
        for fault in architecture.faults if with_faults else ():
            if fault not in known:
                trial = result.faults[fault] = self.catches(fault, checkpoint, chip)
                self.say(f"{architecture.name}, fault {fault}: {'caught' if trial.caught else 'MISSED'}")
                keep(result)
        return result

    def checkpoint(self) -> Path:
        """The checkpoint's folder, made if need be. Raises AscendError where its logits say too little to judge by."""
        folder = self.cache / self.architecture.checkpoint_name(self.seed)
        if not (folder / FACTS).is_file():
            self.reference([], [])
        complaint = json.loads((folder / FACTS).read_text()).get("complaint")
        if complaint:
            raise AscendError(f"the checkpoint of {self.architecture.name} could hide faults: {complaint}")
        return folder

    def engine(self, checkpoint: Path, chip: str | None, setting: Setting, prompts: Prompts | None = None) -> Answer:
        if prompts is None:
            vocab_size = self.architecture.vocab_size
            prompts = make_covering_prompts(vocab_size, self.seed) if setting.covering else self.prompts
        remote = {"trust_remote_code": True} if self.architecture.needs_remote_code else {}
        place = self.places.chips(chip)
        with tempfile.TemporaryDirectory(prefix="ascend-models-") as folder:
            job: dict[str, Any] = {
                "checkpoint": str(checkpoint),
                "task": self.architecture.task,
                "engine": {**self.common_engine, **self.architecture.engine, **remote, **setting.engine},
                "whole": prompts.whole,
                "chunked": prompts.chunked,
                "new_tokens": NEW_TOKENS,
                "media": bool(self.architecture.media),
                "adapters": [str(folder) for folder in self._adapters(checkpoint)] if setting.adapters else [],
                "output": f"{folder}/answer.npz",
                "report": f"{folder}/report.json",
            }
            log = self.logs / f"{self.architecture.name}-{chip or 'here'}-{setting.name}.log"
            replays = place.replays()
            code = self._child(place, "conformance.engine", job, Path(folder), log, self.engine_timeout_s)
            if not Path(job["report"]).is_file():
                ended = (
                    f"gave no answer in {self.engine_timeout_s} s" if code == TIMED_OUT else f"died (exit code {code})"
                )
                message = f"the engine {ended}, see {log.name}"
                return Answer({"outcome": "failed", "message": message, "versions": versions()}, {})
            report = json.loads(Path(job["report"]).read_text())
            with np.load(job["output"]) as arrays:
                answer = Answer(report, dict(arrays), place.replays())
            if answer.replays is not None:
                answer.replays -= replays or 0
        self.say(f"{self.architecture.name} on {chip or HERE}, {setting.name}: {report['outcome']}")
        return answer

    def _adapters(self, checkpoint: Path) -> list[Path]:
        """The folders of the checkpoint's LoRA adapters, made if need be."""
        folders = [checkpoint / f"adapter-{number}" for number in range(1, ADAPTERS + 1)]
        if not all((folder / "adapter_config.json").is_file() for folder in folders):
            self._on_the_cpu("conformance.adapters", str(checkpoint))
        return folders

    def reference(self, sequences: list[list[int]], dtypes: list[str], adapters: Sequence[int] | None = None) -> Arrays:
        """The reference's answers, "<dtype>.<index of the sequence>"; without sequences it makes the checkpoint.

        Engines mostly answer alike, so sequences come back: each is computed once. `adapters` has the number of each
        sequence's LoRA adapter, 0 for none; or of its prompt among those with media; or, of a prefix LM, how long its
        prompt is.
        """
        wanted = ["float32", *dtypes]
        keys = list(zip(adapters or [0] * len(sequences), map(tuple, sequences), strict=True))
        new = [key for key in dict.fromkeys(keys) if any((name, key) not in self._answered for name in wanted)]
        if new or not sequences:
            found = self._run_reference(new, dtypes)
            for name in wanted if new else ():
                self._answered.update({(name, key): found[f"{name}.{row}"] for row, key in enumerate(new)})
        return {f"{name}.{row}": self._answered[name, key] for name in wanted for row, key in enumerate(keys)}

    def _run_reference(self, sequences: list[Answered], dtypes: list[str]) -> Arrays:
        if self.architecture.media:
            prompts = [self.prompts.all[number - 1] for number, _ in sequences]
            folders: Mapping[int, str | None] = dict.fromkeys(range(len(self.prompts.all) + 1))
        elif self.architecture.reads_prompts_whole:
            prompts, folders = [], dict.fromkeys((number for number, _ in sequences), None)
        else:
            prompts = []
            adapted = any(number for number, _ in sequences)
            folders = dict(enumerate([None, *map(str, self._adapters(self.checkpoint()))] if adapted else [None]))
        with tempfile.TemporaryDirectory(prefix="ascend-models-") as folder:
            job: dict[str, Any] = {
                "architecture": asdict(self.architecture),
                "directory": str(self.cache),
                "seed": self.seed,
                "sequences": [tokens for _, tokens in sequences],
                "media": prompts,
                "adapters": [folders[number] for number, _ in sequences],
                "prompt_lengths": [n for n, _ in sequences] if self.architecture.reads_prompts_whole else [],
                "dtypes": dtypes,
                "output": f"{folder}/reference.npz",
            }
            log = self.logs / f"{self.architecture.name}-reference.log"
            place, module = self.places.cpu(), "conformance.reference"
            code = self._child(place, module, job, Path(folder), log, REFERENCE_TIMEOUT_S)
            if code != 0:
                raise AscendError(f"the reference of {self.architecture.name} failed, see {log}")
            if not sequences:
                return {}
            with np.load(job["output"]) as arrays:
                return dict(arrays)

    def catches(self, fault: str, checkpoint: Path, chip: str | None) -> Trial:
        """Whether the comparison rejects an engine that was given this fault."""
        # fp16 wherever vLLM allows it: its noise is an eighth of bf16's, so a fault stands out that much more.
        precision = {} if self.architecture.needs_bfloat16 else {"dtype": "float16"}
        plainest = settings_for(self.architecture)[0].engine
        setting = Setting(f"fault-{fault}", {**plainest, "enforce_eager": True, **precision}, ())
        with tempfile.TemporaryDirectory(prefix="ascend-models-") as folder:
            prompts = None
            if fault == faults.WRONG_HISTORY:
                prompts = Prompts(self.prompts.whole, [faults.misread(prompt) for prompt in self.prompts.chunked])
            elif fault in faults.ON_PROMPTS:
                change = faults.ON_PROMPTS[fault]
                prompts = Prompts(*(list(map(change, part)) for part in (self.prompts.whole, self.prompts.chunked)))
            else:
                checkpoint = self._faulty(checkpoint, fault, Path(folder) / checkpoint.name)
            answer = self.engine(checkpoint, chip, setting, prompts)
        if answer.report["outcome"] != "ran":
            raise AscendError(f"the engine with the fault {fault!r} did not run: {answer.report['message']}")
        judged = self.judge(answer, correct_prompts=prompts is not None)
        caught = not all(verdict.good for verdict in judged.values())
        return Trial(caught, date.today().isoformat(), answer.report.get("versions", {}))

    def _faulty(self, checkpoint: Path, fault: str, target: Path) -> Path:
        self._on_the_cpu("conformance.faults", str(checkpoint), fault, str(target))
        return target

    def _on_the_cpu(self, module: str, *arguments: str) -> None:
        log = self.logs / f"{self.architecture.name}-{module.split('.')[-1]}.log"
        if self.places.cpu().run(module, arguments, log, REFERENCE_TIMEOUT_S) != 0:
            raise AscendError((log.read_text().strip().splitlines() or ["no message"])[-1])

    def _child(self, place: Place, module: str, job: dict[str, Any], folder: Path, log: Path, timeout_s: int) -> int:
        """Run a module of this package on a job, its output into the log; the exit code, or 124 past the time."""
        job_file = folder / "job.json"
        job_file.write_text(json.dumps(job))
        return place.run(module, [str(job_file)], log, timeout_s)

    def _add_cells(self, result: ModelResult, setting: Setting, answer: Answer) -> None:
        """The cells of one engine start; a refusal of the model itself counts for every setting."""
        report = answer.report
        result.dtype = result.dtype or report.get("dtype")
        features: Sequence[str] = setting.features
        if self._refuses_model(setting, report):
            features = [feature for every in settings_for(self.architecture) for feature in every.features]
            cells = dict.fromkeys(features, Cell("refused", report["message"]))
        elif report["outcome"] != "ran":
            outcome: Outcome = "refused" if report["outcome"] == "refused" else "fails"
            cells = dict.fromkeys(features, Cell(outcome, report["message"]))
        else:
            verdicts = self.judge(answer)
            cells = {feature: self._cell(feature, answer, verdicts) for feature in features}
        seen = {"date": date.today().isoformat(), "versions": report.get("versions", {})}
        result.cells.update({feature: replace(cell, **seen) for feature, cell in cells.items()})

    def _refuses_model(self, setting: Setting, report: Mapping[str, Any]) -> bool:
        """Whether the plainest start was refused: no other is then worth trying."""
        return report["outcome"] == "refused" and setting.name == settings_for(self.architecture)[0].name

    def _cell(self, feature: str, answer: Answer, verdicts: Mapping[str, Verdict]) -> Cell:
        parts = {
            "prefill": ("whole prompt",),
            "chunked prefill": ("chunked prompt",),
            "prefix cache": ("again new",),
            "decode, eager": ("whole new", "chunked new"),
            "decode, graph": ("whole new", "chunked new"),
            "pooling": ("whole prompt",),
        }.get(feature, tuple(verdicts))
        chosen = [verdicts[part] for part in parts]
        worst = max(chosen, key=lambda verdict: (not verdict.good, verdict.typical))
        missing = self._missing_evidence(feature, answer)
        if missing in (NO_GRAPHS, NO_REPLAY) and worst.good and feature in self.architecture.impossible:
            return Cell("impossible", self.architecture.impossible[feature])
        outcome: Outcome = "pass" if worst.good and missing is None else "fails"
        return Cell(outcome, missing or str(worst), round(worst.typical, 2), round(max(v.worst for v in chosen), 2))

    def _missing_evidence(self, feature: str, answer: Answer) -> str | None:
        """Right answers got in the wrong way: no block from the cache, no graph replayed."""
        if feature == "prefix cache" and not answer.report["cached_tokens"]:
            return "no token came from the prefix cache"
        if feature in ("n-gram", "MTP") and not answer.report["drafted_tokens"]:
            return "no token was drafted"
        if feature == "MTP" and not 0 < answer.report["accepted_tokens"] < answer.report["drafted_tokens"]:
            return f"{answer.report['accepted_tokens']} of {answer.report['drafted_tokens']} drafts were accepted"
        if feature not in ("decode, graph", "n-gram", "MTP", "LoRA"):
            return None
        if answer.report["graphs"] == "NONE":
            return NO_GRAPHS
        if answer.replays == 0:
            return NO_REPLAY
        return None

    def judge(self, answer: Answer, correct_prompts: bool = False) -> dict[str, Verdict]:
        """Verdicts by kind of position: prompt and new tokens of each check.

        correct_prompts: the engine was given other prompts than the ones that count (the fault "wrong-history").
        """
        names = [name.removesuffix(".tokens") for name in answer.arrays if name.endswith(".tokens")]
        sequences = [self._true_tokens(answer, name, correct_prompts) for name in names]
        dtype = answer.report.get("rounding", answer.report["dtype"])
        adapters = [int(answer.arrays.get(f"{name}.adapter", 0)) for name in names]
        if self.architecture.media:
            adapters = [self._prompt_number(name) for name in names]
        elif self.architecture.reads_prompts_whole:
            adapters = [int(answer.arrays[f"{name}.prompt"]) for name in names]
        expected = self.reference(sequences, [] if dtype == "float32" else [dtype], adapters)
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for index, name in enumerate(names):
            rows, first = answer.arrays[f"{name}.rows"], int(answer.arrays[f"{name}.first"])
            truth = expected[f"float32.{index}"][first : first + len(rows)]
            rounded = expected[f"{dtype}.{index}"][first : first + len(rows)] if dtype != "float32" else truth
            error, noise = errors(rows, truth), errors(rounded, truth)
            if (
                dtype == "float32"
            ):  # no rounding to compare with: that of a sum of a thousand terms, in units of the answer
                noise = np.full_like(error, 1e-4 * float(np.abs(truth).mean()))
            split = (
                int(answer.arrays[f"{name}.prompt"]) - 1 - first if self.architecture.task == "generate" else len(rows)
            )
            check = name.split(".")[0]
            found.setdefault(f"{check} prompt", []).append((error[: split + 1], noise[: split + 1]))
            found.setdefault(f"{check} new", []).append((error[split + 1 :], noise[split + 1 :]))
        return self._verdicts(found)

    def _prompt_number(self, name: str) -> int:
        """The place, from 1 on, of the prompt that "<check>.<index>" answers among all of them."""
        check, index = name.split(".")
        return int(index) + 1 + (0 if check == "whole" or not self.prompts.chunked else len(self.prompts.whole))

    def _true_tokens(self, answer: Answer, name: str, correct_prompts: bool) -> list[int]:
        tokens = answer.arrays[f"{name}.tokens"]
        if correct_prompts and not self.architecture.media:
            check, index = name.split(".")
            prompts = self.prompts.whole if check == "whole" else self.prompts.chunked
            tokens = faults.undo_misreading(tokens, int(answer.arrays[f"{name}.prompt"]), prompts[int(index)])
        return [int(token) for token in tokens]

    def _verdicts(self, found: Mapping[str, list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, Verdict]:
        joined = {
            kind: (np.concatenate([error for error, _ in parts]), np.concatenate([noise for _, noise in parts]))
            for kind, parts in found.items()
        }
        whole = tuple(np.concatenate(parts) for parts in zip(*joined.values(), strict=True))
        routed = is_routed(self.architecture)
        return {kind: judge(error, noise, whole, routed) for kind, (error, noise) in joined.items() if len(error)}
