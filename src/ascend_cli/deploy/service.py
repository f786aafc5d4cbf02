"""What is deployed, decided once for every target: image, chips, mounts, user, key, and the server's arguments."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ascend_cli.deploy import host_files
from ascend_cli.deploy.images import Image
from ascend_cli.deploy.names import check_mount, check_name, check_text
from ascend_cli.errors import UsageError
from ascend_cli.hardware.host import alike
from ascend_cli.hardware.npu_smi import Reading
from ascend_cli.registry.cards import Model
from ascend_cli.registry.parsers import parser_flags
from ascend_cli.serving.decide import LIMITS
from ascend_cli.serving.flags import ServeFlags, spelled
from ascend_facts.chips import ChipSpec
from ascend_facts.memory_plan import DEFAULT_MEMORY_FRACTION, MemoryPlan, plan_memory, refusal, request_on
from ascend_facts.model_results import standing

CACHE = "/cache"
HOST_CACHE = "/var/lib/vllm-cache"
CONTAINER_PORT = 8000
USER = 1000
SEQUENCES = 64  # --max-num-seqs of a service, unless it is given
DEFAULT_CONTEXT = 32768  # without --max-model-len vLLM takes the model's longest, 262,144 for Qwen3.5
OWN_FLAGS = ("--host", "--port", "--uds", "--api-key", "--hf-token", "--tensor-parallel-size")  # settled here
HUB_ENDPOINTS = {"hf": "", "hf-mirror": "https://hf-mirror.com", "modelscope": ""}


@dataclass(frozen=True)
class Monitoring:
    """The images that watch a server; false where nothing does."""

    prometheus_image: str = ""
    grafana_image: str = ""

    def __bool__(self) -> bool:
        return bool(self.prometheus_image)


@dataclass(frozen=True)
class Options:
    """The choices of `ascend deploy` that shape the service, as typed."""

    target: str = "docker"
    nodes: int = 1
    proxy_image: str = ""
    devices: str = ""
    runtime: str = "docker"
    model_dir: str = ""
    mount: str = ""
    hub: str = "hf"
    port: int = 8000
    name: str = ""
    served_model_name: str = ""
    api_key_file: Path | None = None
    tensor_parallel_size: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    shm_gib: int = 4
    open_form: bool = False
    interactive: bool = False
    proxy: bool = False
    monitoring: Monitoring = Monitoring()
    root_complex: str = ""  # the host's system, ubuntu or openeuler, if it is an Atlas 200I Pro
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """A model server to run in a container. Everything a template prints is decided here."""

    name: str
    model: Model
    model_argument: str
    model_dir: str | None  # on the host, mounted at the same path
    image: Image
    chip: ChipSpec
    devices: tuple[int, ...]
    runtime: str
    port: int
    shm_gib: int
    user: int | None  # None runs as the image does: root
    open_form: bool
    interactive: bool
    proxy: bool
    api_key_file: str | None
    proxy_image: str = ""
    monitoring: Monitoring = Monitoring()
    root_complex: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    serve_arguments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        return len(self.devices)

    @property
    def device_nodes(self) -> list[str]:
        return host_files.device_nodes(self.devices, self.root_complex)

    @property
    def driver_mounts(self) -> list[str]:
        """Files of the driver on the host; host_files.mounted_at says where each is found in the container."""
        return host_files.driver_mounts(self.root_complex)

    @property
    def visible_devices(self) -> str:
        """The form of ASCEND_VISIBLE_DEVICES: 0-3 for a run of chips, 0,2 otherwise."""
        first, last = self.devices[0], self.devices[-1]
        if len(self.devices) > 1 and list(self.devices) == list(range(first, last + 1)):
            return f"{first}-{last}"
        return ",".join(str(index) for index in self.devices)

    @property
    def serve_command(self) -> list[str]:
        return ["vllm", "serve", *self.serve_arguments]


def parse_devices(text: str) -> tuple[int, ...]:
    """Chip indexes from 0,1 or 0-3. Raises UsageError for anything else, or an index given twice."""
    indexes: list[int] = []
    for part in text.split(","):
        matched = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if matched is None:
            raise UsageError(f"--devices {text!r} is not a list of chips: write 0,1 or 0-3")
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if last < first or last > 63:
            raise UsageError(f"--devices {text!r}: {part} is not a range of chips between 0 and 63")
        indexes.extend(range(first, last + 1))
    if len(set(indexes)) != len(indexes):
        raise UsageError(f"--devices {text!r} names a chip twice: one server takes each chip once")
    return tuple(indexes)


def build_service(model: Model, chip: ChipSpec, image: Image, options: Options, here: Reading | None = None) -> Service:
    """Decide everything. Raises UsageError where the choices contradict each other or the machine.

    here: what npu-smi shows, where the service is for this machine.
    """
    given = _checked(options)
    if options.nodes > 1 and not chip.has_full_hccl:
        raise UsageError(f"{chip.name} joins no servers: its HCCL has no network; leave --nodes out")
    copies = (given.count("--data-parallel-size") or 1) * (given.count("--pipeline-parallel-size") or 1)
    named = parse_devices(options.devices) if options.devices else None
    ranks = options.tensor_parallel_size
    if ranks is None:
        ranks = _largest_split(model, len(named) // copies) if named else _smallest(model, chip, options)
    needed = ranks * copies
    devices = named or _free_devices(needed, here)
    if needed > len(devices):
        raise UsageError(
            f"--tensor-parallel-size {ranks} needs {needed} chips{' with the flags after --' if copies > 1 else ''}, "
            f"--devices names {len(devices)}"
        )
    if not model.shape.splits_into(ranks):
        raise UsageError(f"{model.name} cannot be split over {ranks} chips: give another --tensor-parallel-size")
    if image.is_own and (known := standing(model.shape, chip)).outcome == "refused":
        raise UsageError(f"{model.name} is not served on {chip.name}: {known.detail}")
    memory = _memory(model, chip, ranks, options)
    _check_fit(model, chip, ranks, memory, options)
    model_dir, argument = _model_location(model, options)
    non_root = not options.open_form and image.has_user_1000
    return Service(
        name=check_name(options.name or "vllm-ascend", options.target),
        model=model,
        model_argument=argument,
        model_dir=model_dir,
        image=image,
        chip=chip,
        devices=devices,
        runtime=options.runtime,
        port=options.port,
        shm_gib=10 if options.open_form else options.shm_gib,
        user=USER if non_root else None,
        open_form=options.open_form,
        interactive=options.interactive,
        proxy=options.proxy,
        api_key_file=None if options.open_form else str(_key_file(options)),
        proxy_image=options.proxy_image,
        monitoring=options.monitoring,
        root_complex=options.root_complex,
        environment=_environment(model_dir, options, image),
        serve_arguments=tuple(_serve_arguments(model, image, argument, ranks, memory, options)),
        warnings=tuple(_warnings(image, options, devices, needed, model_dir, here)),
    )


def _checked(options: Options) -> ServeFlags:
    """The user's own flags for vLLM, read; every free text held against its grammar. Raises UsageError."""
    for name in ("served_model_name", "model_dir", "mount"):
        check_text(f"--{name.replace('_', '-')}", getattr(options, name))
    for word in options.extra:
        check_text("a flag after --", word)
    settled = {name.partition("=")[0] for name in spelled(options.extra)} & {*OWN_FLAGS, "-tp"}
    if settled:
        own = "--tp" if settled & {"-tp", "--tensor-parallel-size"} else "--port, --api-key-file"
        raise UsageError(f"{sorted(settled)[0]} after -- contradicts what is rendered: use {own} before it")
    return ServeFlags.read(options.extra)


def _memory(model: Model, chip: ChipSpec, ranks: int, options: Options) -> MemoryPlan:
    """What one chip holds; over several nodes a rank holds its part of the layers as well."""
    from ascend_cli.plan.planner import checkpoint_format

    given = ServeFlags.read(options.extra)
    request = request_on(
        chip,
        ranks * options.nodes,
        checkpoint_format(model.shape, chip),
        chip_bytes=min(chip.usable_memory_mib) << 20,
        memory_fraction=given.share("--gpu-memory-utilization") or DEFAULT_MEMORY_FRACTION,
        batched_tokens=given.tokens("--max-num-batched-tokens") or 0,
        sequences=options.max_num_seqs or (0 if options.open_form else SEQUENCES),
        pipeline_parallel_size=given.count("--pipeline-parallel-size") or 1,
    )
    return plan_memory(model.shape, request)


def _check_fit(model: Model, chip: ChipSpec, ranks: int, memory: MemoryPlan, options: Options) -> None:
    """Nothing is rendered that the engine would refuse. Raises UsageError with the plan's arithmetic."""
    if not model.shape.is_counted:
        return  # no published total holds the count: the engine does not refuse by it either
    if not memory.fits:
        raise UsageError(refusal(model.name, model.shape, memory, chip.name).rstrip("."))
    if options.max_model_len and options.max_model_len > memory.max_context:
        raise UsageError(
            f"--max-model-len {options.max_model_len:,} does not fit: {memory.max_context:,} tokens do "
            f"on {ranks} x {chip.name} (`ascend plan {model.name}` has the arithmetic)"
        )


def _free_devices(needed: int, here: Reading | None) -> tuple[int, ...]:
    """The first chips, or the first that nothing holds where npu-smi shows this machine's. Raises UsageError."""
    if here is None:
        return tuple(range(needed))
    same = alike(here.chips)
    free = sorted(chip.device_id for chip in same if not here.processes_on(chip))
    if len(free) < needed:
        raise UsageError(
            f"{needed} chips are needed, {len(free)} of the {len(same)} here are free: "
            "end what holds the others, or name chips with --devices"
        )
    return tuple(free[:needed])


def _smallest(model: Model, chip: ChipSpec, options: Options) -> int:
    from ascend_facts.memory_plan import smallest_that_fits

    request = replace(_memory(model, chip, 1, options).request, tensor_parallel_size=1)
    memory = smallest_that_fits(model.shape, request, chips=16)
    if memory is None:
        raise UsageError(
            f"{model.name} does not fit 16 {chip.name} chips: see `ascend plan {model.name} --chip {chip.name}`"
        )
    return -(-memory.request.tensor_parallel_size // options.nodes)


def _largest_split(model: Model, chips: int) -> int:
    return next((size for size in range(chips, 0, -1) if model.shape.splits_into(size)), 1)


def _model_location(model: Model, options: Options) -> tuple[str | None, str]:
    """The host folder to mount, and what `--model` is given inside (the same path, as the user knows it)."""
    if options.model_dir:
        if not options.model_dir.startswith("/"):
            raise UsageError(f"--model-dir {options.model_dir!r} must be an absolute path: containers have no other")
        return _mount(options.model_dir, options), options.model_dir
    if model.folder is not None and (model.source == "folder" or any(model.folder.glob("*.safetensors"))):
        return _mount(str(model.folder), options), str(model.folder)
    if model.hub_id is None:
        raise UsageError(f"{model.name} has no weights to mount: give --model-dir")
    return None, model.hub_id


def hub_folder(folder: str) -> Path | None:
    """The repository around a snapshot in Hugging Face's cache, whose files are links to blobs beside it."""
    path = Path(folder)
    is_snapshot = path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--")
    return path.parent.parent if is_snapshot else None


def short_name(model: Model) -> str:
    """The name that clients use: of the repository, where the folder is named by a commit."""
    repository = hub_folder(str(model.folder)) if model.folder else None
    return repository.name.rpartition("--")[2] if repository and model.source == "folder" else model.name


def _mount(folder: str, options: Options) -> str:
    """The folder to mount: the model's own, or one around it that the user names."""
    if options.mount and not f"{folder}/".startswith(options.mount.rstrip("/") + "/"):
        raise UsageError(f"--mount {options.mount} does not contain {folder}: name a folder around the model's")
    around = options.mount or str(hub_folder(folder) or folder)
    return check_mount("the folder to mount", around) if options.target == "docker" else around


def _key_file(options: Options) -> Path:
    if options.api_key_file is None:
        return Path("vllm-api-key")
    from ascend_cli.secret import read_key

    read_key(options.api_key_file)
    return Path(check_mount("--api-key-file", str(options.api_key_file.absolute())))


def _environment(model_dir: str | None, options: Options, image: Image) -> dict[str, str]:
    environment = {}
    if options.hub == "modelscope":
        environment["VLLM_USE_MODELSCOPE"] = "True"
    if endpoint := HUB_ENDPOINTS[options.hub]:
        environment["HF_ENDPOINT"] = endpoint
    if options.open_form:
        return environment
    environment |= {"HOME": "/tmp", "ASCEND_PROCESS_LOG_PATH": "/tmp/ascend-log", "VLLM_CACHE_ROOT": "/tmp/vllm"}
    if model_dir is not None:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        environment.pop("VLLM_USE_MODELSCOPE", None)
        environment.pop("HF_ENDPOINT", None)
    else:
        environment |= {"HF_HOME": f"{CACHE}/huggingface", "MODELSCOPE_CACHE": f"{CACHE}/modelscope"}
    return environment


def _serve_arguments(
    model: Model, image: Image, argument: str, ranks: int, memory: MemoryPlan, options: Options
) -> list[str]:
    arguments = [*image.needed_flags, "--model", argument]
    arguments += ["--served-model-name", options.served_model_name or short_name(model)]
    arguments += parser_flags(model)
    arguments += ["--tensor-parallel-size", str(ranks)]
    if not options.open_form:
        arguments += ["--host", "0.0.0.0", "--port", str(CONTAINER_PORT)]
        arguments += ["--max-model-len", str(options.max_model_len or _context(memory))]
        arguments += ["--max-num-seqs", str(options.max_num_seqs or SEQUENCES), "--disable-fastapi-docs"]
        if image.is_own:  # another's image has not this project's package
            arguments += ["--middleware", LIMITS]
        return [*arguments, *options.extra]
    if options.port != CONTAINER_PORT:  # on the host's network
        arguments += ["--port", str(options.port)]
    if options.max_model_len:
        arguments += ["--max-model-len", str(options.max_model_len)]
    if options.max_num_seqs:
        arguments += ["--max-num-seqs", str(options.max_num_seqs)]
    return [*arguments, *options.extra]


def _context(memory: MemoryPlan) -> int:
    """A context that fits and that a service can afford; the whole of the model's where that is not much."""
    return min(memory.max_context, max(DEFAULT_CONTEXT, min(memory.model_max_context, 40960)))


def _warnings(
    image: Image, options: Options, devices: tuple[int, ...], needed: int, model_dir: str | None, here: Reading | None
) -> list[str]:
    from ascend_cli.doctor.advisories import open_advisories

    lines = []
    if options.open_form:
        lines.append("open form: root, the host's network, no key, every interface. For a closed test network only.")
    elif not image.has_user_1000:
        lines.append(
            f"{image.reference} has no user 1000, so the container runs as root: "
            "the image of `ascend deploy --target dockerfile` does not."
        )
    if options.root_complex:
        lines.append(
            f"{host_files.ROOT_COMPLEX}: known guides start its container privileged; this one is not, and untried."
        )
    if not image.is_known_release:
        lines.append(f"{image.reference} is not a release known here: check that it exists.")
    if image.version and (advisories := open_advisories(image.version)):
        severe = ", ".join(advisory.id for advisory in advisories[:4])
        lines.append(
            f"vLLM {image.version} has {len(advisories)} open advisories ({severe} ...): `ascend doctor --vllm-version "
            f"{image.version}` lists them. Keep the server behind a proxy."
        )
    if len(devices) > needed:
        lines.append(f"{len(devices) - needed} of the {len(devices)} chips will idle: the model takes {needed}.")
    absent = sorted(set(devices) - {chip.device_id for chip in here.chips}) if here else []
    if absent:
        lines.append(f"npu-smi shows no chip {', '.join(map(str, absent))} here.")
    if image.has_user_1000 and model_dir and not _is_readable(model_dir):
        lines.append(f"uid {USER} cannot read {model_dir}: sudo chmod -R o+rX {model_dir}")
    return lines


def _is_readable(folder: str) -> bool:
    """Whether the container's user may read a folder of this machine and its files; one elsewhere is not judged.

    Weights that root saved by safetensors are root's alone (0600) in a folder that all may read.
    """
    try:
        if not _may(os.stat(folder), 0o5):
            return False
        with os.scandir(folder) as entries:
            return all(_may(entry.stat(), 0o4) for entry in entries if entry.is_file())
    except OSError:
        return True


def _may(status: os.stat_result, rights: int) -> bool:
    """rights: of the last octal digit, as for others."""
    bits = rights << 6 if status.st_uid == USER else rights << 3 if status.st_gid == USER else rights
    return status.st_mode & bits == bits
