"""What is deployed, decided once for every target: image, chips, mounts, user, key, and the server's arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ascend_cli.deploy.images import Image, catalogue
from ascend_cli.errors import UsageError
from ascend_cli.registry.cards import Model
from ascend_cli.registry.parsers import parser_flags
from ascend_facts.chips import ChipSpec
from ascend_facts.memory_plan import MemoryRequest, plan_memory

COMMON_NODES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
DRIVER_MOUNTS = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/Ascend/driver/lib64/",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)
HCCN_TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"  # multi-node over RoCE; 310P has no such network
KEY_FILE = "/run/secrets/vllm_api_key"
CACHE = "/cache"
CONTAINER_PORT = 8000
USER = 1000
DEFAULT_CONTEXT = 32768  # without --max-model-len vLLM takes the model's longest, 262,144 for Qwen3.5
HUB_ENDPOINTS = {"hf": "", "hf-mirror": "https://hf-mirror.com", "modelscope": ""}


@dataclass(frozen=True)
class Options:
    """The choices of `ascend deploy` that shape the service, as typed."""

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
    environment: dict[str, str] = field(default_factory=dict)
    serve_arguments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        return len(self.devices)

    @property
    def device_nodes(self) -> list[str]:
        return [*(f"/dev/davinci{index}" for index in self.devices), *COMMON_NODES]

    @property
    def driver_mounts(self) -> list[str]:
        return list(DRIVER_MOUNTS)

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


def build_service(model: Model, chip: ChipSpec, image: Image, options: Options) -> Service:
    """Decide everything. Raises UsageError where the choices contradict each other or the machine."""
    ranks = options.tensor_parallel_size
    devices = parse_devices(options.devices) if options.devices else tuple(range(ranks or _smallest(model, chip)))
    ranks = ranks or _largest_split(model, len(devices))
    if ranks > len(devices):
        raise UsageError(f"--tensor-parallel-size {ranks} needs {ranks} chips, --devices names {len(devices)}")
    if not model.shape.splits_into(ranks):
        raise UsageError(f"{model.name} cannot be split over {ranks} chips: give another --tensor-parallel-size")
    model_dir, argument = _model_location(model, options)
    warnings = list(_warnings(image, options, devices, ranks))
    non_root = not options.open_form and image.has_user_1000
    return Service(
        name=options.name or "vllm-ascend",
        model=model,
        model_argument=argument,
        model_dir=model_dir,
        image=image,
        chip=chip,
        devices=devices[:ranks] if not options.devices else devices,
        runtime=options.runtime,
        port=options.port,
        shm_gib=10 if options.open_form else options.shm_gib,
        user=USER if non_root else None,
        open_form=options.open_form,
        interactive=options.interactive,
        proxy=options.proxy,
        api_key_file=None if options.open_form else str(_key_file(options)),
        environment=_environment(model_dir, options, image),
        serve_arguments=tuple(_serve_arguments(model, chip, image, argument, ranks, options)),
        warnings=tuple(warnings),
    )


def _smallest(model: Model, chip: ChipSpec) -> int:
    from ascend_facts.memory_plan import smallest_that_fits

    memory = smallest_that_fits(model.shape, MemoryRequest(1, min(chip.usable_memory_mib) << 20), chips=16)
    if memory is None:
        raise UsageError(
            f"{model.name} does not fit 16 {chip.name} chips: see `ascend plan {model.name} --chip {chip.name}`"
        )
    return memory.request.tensor_parallel_size


def _largest_split(model: Model, chips: int) -> int:
    return next(size for size in range(chips, 0, -1) if model.shape.splits_into(size))


def _model_location(model: Model, options: Options) -> tuple[str | None, str]:
    """The host folder to mount, and what `--model` is given inside (the same path, as the user knows it)."""
    if options.model_dir:
        if not options.model_dir.startswith("/"):
            raise UsageError(f"--model-dir {options.model_dir!r} must be an absolute path: containers have no other")
        return _mount(options.model_dir, options), options.model_dir
    if model.source == "folder" and model.folder is not None:
        return _mount(str(model.folder), options), str(model.folder)
    if model.hub_id is None:
        raise UsageError(f"{model.name} has no weights to mount: give --model-dir")
    return None, model.hub_id


def _mount(folder: str, options: Options) -> str:
    """The folder to mount: the model's own, or one around it that the user names."""
    if options.mount and not f"{folder}/".startswith(options.mount.rstrip("/") + "/"):
        raise UsageError(f"--mount {options.mount} does not contain {folder}: name a folder around the model's")
    return options.mount or folder


def _key_file(options: Options) -> Path:
    if options.api_key_file is None:
        return Path("vllm-api-key")
    from ascend_cli.secret import read_key

    read_key(options.api_key_file)
    return options.api_key_file.absolute()


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
    model: Model, chip: ChipSpec, image: Image, argument: str, ranks: int, options: Options
) -> list[str]:
    arguments = [*image.needed_flags, "--model", argument]
    arguments += ["--served-model-name", options.served_model_name or model.name]
    arguments += parser_flags(model)
    arguments += ["--tensor-parallel-size", str(ranks)]
    if not options.open_form:
        arguments += ["--host", "0.0.0.0", "--port", str(CONTAINER_PORT)]
        arguments += ["--max-model-len", str(options.max_model_len or _context(model, chip, ranks))]
        arguments += ["--max-num-seqs", str(options.max_num_seqs or 64), "--disable-fastapi-docs"]
    elif options.max_model_len:
        arguments += ["--max-model-len", str(options.max_model_len)]
    return [*arguments, *options.extra]


def _context(model: Model, chip: ChipSpec, ranks: int) -> int:
    """A context that fits and that a service can afford; the whole of the model's where that is not much."""
    request = MemoryRequest(ranks, min(chip.usable_memory_mib) << 20, block_size=chip.kv_block_sizes[0])
    fits = plan_memory(model.shape, request).max_context
    return min(fits or model.shape.max_context, max(DEFAULT_CONTEXT, min(model.shape.max_context, 40960)))


def _warnings(image: Image, options: Options, devices: tuple[int, ...], ranks: int) -> list[str]:
    from ascend_cli.doctor.advisories import open_advisories

    lines = []
    if options.open_form:
        lines.append("open form: root, the host's network, no key, every interface. For a closed test network only.")
    elif not image.has_user_1000:
        lines.append(
            f"{image.reference} has no user 1000, so the container runs as root: "
            f"prefer v{catalogue()['default_release']}-310p "
            "or build `ascend deploy --target dockerfile`."
        )
    if not image.is_known_release:
        lines.append(f"{image.reference} is not a release known here: check that it exists.")
    if image.version and (advisories := open_advisories(image.version)):
        severe = ", ".join(advisory.id for advisory in advisories[:4])
        lines.append(
            f"vLLM {image.version} has {len(advisories)} open advisories ({severe} ...): `ascend doctor --vllm-version "
            f"{image.version}` lists them. Keep the server behind a proxy."
        )
    if len(devices) > ranks:
        lines.append(f"{len(devices) - ranks} of the {len(devices)} chips will idle: the model splits over {ranks}.")
    return lines


def port_is_taken(port: int) -> bool:
    """Whether something listens on 127.0.0.1:port on this machine."""
    import socket

    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
