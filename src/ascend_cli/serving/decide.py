"""Preparing `vllm serve`: the model's files, a plan for the chips at hand, the flags that vLLM leaves to its users."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ascend_cli.errors import UsageError
from ascend_cli.hardware.vllm import vllm_command
from ascend_cli.output import gib
from ascend_cli.registry.cards import Model, find_model
from ascend_cli.registry.parsers import parser_flags
from ascend_cli.serving.records import StartedServer
from ascend_facts.chips import ChipSpec

EMBEDDED = {"smollm2": "SmolLM2-135M-Instruct"}  # built from a wheel of the package index: no hub is needed
EMULATED_CACHE_BYTES = 1 << 30  # the cache of an emulated chip lies in this machine's memory
VALUES = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size"}


@dataclass(frozen=True)
class Machine:
    """The chips that a server will see."""

    chip: ChipSpec
    chips: int
    emulated: bool
    clock: str


@dataclass(frozen=True)
class Launch:
    """A server ready to start: its command, what is known of it, and what to tell the user."""

    command: list[str]
    server: StartedServer
    notices: tuple[str, ...]

    @property
    def process(self) -> list[str]:
        """What to execute for `command`: the same, through vllm_process where `vllm` belongs to this Python."""
        if Path(self.command[0]).parent != Path(sys.executable).parent:
            return self.command
        return [sys.executable, "-m", "ascend_cli.serving.bootstrap", *self.command[1:]]


def machine_here() -> Machine:
    """Chips of this machine; emulated ones where there is no NPU and the emulator is installed. Raises UsageError."""
    from ascend_cli.hardware import chips_here
    from ascend_cli.hardware.host import is_emulated, spec_of

    if is_emulated():
        from ascend_emulator.settings import Settings, SettingsError

        from ascend_facts.chips import find

        try:
            settings = Settings.from_environment()
        except SettingsError as error:
            raise UsageError(str(error).rstrip(".")) from error
        return Machine(find(settings.chip), _visible(settings.chip_count), True, settings.clock)
    found = chips_here()
    if not found:
        raise UsageError("no NPU is here and the emulator is not installed: `ascend doctor` says what is missing")
    return Machine(spec_of(found[0]), _visible(len(found)), False, "real")


def _visible(chips: int) -> int:
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "").strip()
    return min(chips, len(visible.split(","))) if visible else chips


def model_files(name: str, hub: str) -> Model:
    """The model with its weights on this machine, fetched or built if need be. Raises UsageError or AscendError."""
    if name.lower() in EMBEDDED and not Path(name).is_dir():
        return _embedded(name.lower())
    from ascend_cli.registry.download import download

    try:
        model = find_model(name)
    except UsageError:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise
        folder = download(name, hub)
        return replace(find_model(str(folder)), name=name.split("/")[1], hub_id=name)
    if model.folder is not None and _has_weights(model.folder):
        return model
    if model.hub_id is None:
        raise UsageError(f"{model.folder} has no weights (*.safetensors): download them into it")
    folder = download(model.hub_id, hub)
    return replace(find_model(str(folder)), name=model.name, hub_id=model.hub_id)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _embedded(name: str) -> Model:
    from ascend_cli.registry.smollm2 import ModelSourceMissing, build_smollm2

    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ascend-plugin" / "models"
    try:
        folder = build_smollm2(cache / name)
    except ModelSourceMissing as error:
        raise UsageError(str(error)) from error
    return replace(find_model(str(folder)), name=name)


def option(flags: Sequence[str], name: str) -> str | None:
    """The value of a flag in a command line, written `--flag value`, `--flag=value` or `-tp value`; None if absent."""
    for index, word in enumerate(flags):
        word = VALUES.get(word, word)
        flag, separator, value = word.partition("=")
        if flag.replace("_", "-") == name:
            if separator:
                return value
            following = flags[index + 1] if index + 1 < len(flags) else ""
            return "" if following.startswith("-") else following
    return None


def emulated_cache_limit(flags: Sequence[str]) -> list[str]:
    """The flag that keeps an emulated chip's cache small, unless the user sizes the cache."""
    memory_flags = ("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--num-gpu-blocks-override")
    if any(option(flags, name) is not None for name in memory_flags):
        return []
    return ["--kv-cache-memory-bytes", str(EMULATED_CACHE_BYTES)]


def prepare(model: Model, machine: Machine, flags: Sequence[str]) -> Launch:
    """Decide what the user left open. Raises UsageError if the model cannot fit these chips."""
    from ascend_cli.plan.planner import PlanRequest, Workload, checkpoint_format, make_plan

    shape = model.shape
    asked = option(flags, "--tensor-parallel-size")
    question = PlanRequest(
        model=model,
        chip=machine.chip,
        chips=machine.chips,
        workload=Workload(),
        weight_format=checkpoint_format(shape, machine.chip),
        tensor_parallel_size=int(asked) if asked and asked.isdigit() else None,
    )
    answer = make_plan(question)
    choice = answer.best_choice
    if choice is None or not choice.fits:
        raise UsageError(answer.advice[0].rstrip(".") if answer.advice else f"{model.name} does not fit")
    ranks = choice.tensor_parallel_size
    added: list[str] = []
    if option(flags, "--served-model-name") is None:
        added += ["--served-model-name", model.name]
    if asked is None and ranks > 1:
        added += ["--tensor-parallel-size", str(ranks)]
    if option(flags, "--max-model-len") is None and choice.max_context < shape.max_context:
        added += ["--max-model-len", str(choice.max_context)]
    if option(flags, "--tool-call-parser") is None and option(flags, "--reasoning-parser") is None:
        added += parser_flags(model)
    limit = emulated_cache_limit(flags) if machine.emulated else []
    added += limit
    port = int(option(flags, "--port") or 8000)
    server = StartedServer(
        pid=os.getpid(),
        port=port,
        model=str(model.folder),
        chip=machine.chip.name,
        tensor_parallel_size=ranks,
        emulated=machine.emulated,
        clock=machine.clock,
        settings={"flags": " ".join([*added, *flags])},
    )
    notices = _notices(model, machine, ranks, port, bool(limit), choice.weights_bytes)
    return Launch([vllm_command(), "serve", str(model.folder), *added, *flags], server, notices)


def _notices(
    model: Model, machine: Machine, ranks: int, port: int, limits_cache: bool, weights_bytes: int
) -> tuple[str, ...]:
    lines = []
    if machine.emulated:
        lines.append(
            f"No NPU is used: {machine.chips} x {machine.chip.name} emulated on this CPU. "
            "Answers are real, speeds are not a chip's."
        )
    if limits_cache:
        lines.append(
            f"Each emulated chip's cache is held to {gib(EMULATED_CACHE_BYTES)} (--kv-cache-memory-bytes changes it)."
        )
    lines.append(
        f"{model.name}: {gib(weights_bytes)} of weights a chip on {ranks} of {machine.chips} {machine.chip.name} chips."
    )
    lines.append("Once it says `Application startup complete`, try:")
    lines.append(f"  curl -s http://localhost:{port}/v1/models")
    lines.append(f"  vllm chat --url http://localhost:{port}/v1 --quick 'What is the capital of France?'")
    lines.append(f"  ascend bench serve --url http://localhost:{port}")
    return tuple(lines)
