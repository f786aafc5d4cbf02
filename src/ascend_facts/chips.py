"""Chip facts: a typed, frozen view of chips.toml. Imports neither torch nor anything that touches a device."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

TABLE = Path(__file__).with_name("chips.toml")
CONSTANTS = Path(__file__).with_name("time_model.toml")


class UnknownChip(LookupError):
    """A name that no chip of the table answers to; the message lists those that do."""


class ChipTableError(ValueError):
    """chips.toml does not fit ChipSpec: a field is missing, unknown or of another type."""


@dataclass(frozen=True, slots=True)
class Link:
    """How two chips talk: bandwidth one way, and what a step of a collective takes before a byte has moved."""

    kind: str
    topology: str  # as `npu-smi info -t topo` abbreviates it
    gbps: float
    latency_us: float = 0.0  # of links inside a server: the family's step_us of time_model.toml


@dataclass(frozen=True, slots=True)
class Forms:
    """Which form of an operation is sure to be right on a chip, where there are several.

    The table holds what others run on the silicon, or else what is safest; what a probe found on the installed software
    takes its place (see `probes`). A form says what the operators take, never which model is at hand.
    """

    fp32_out_nz: bool  # float16 times a weight in FRACTAL_NZ may give float32
    row_index_copy: bool  # index_copy_ of whole rows; otherwise they are assigned by index
    batched_row_products: bool  # a batch of products of single rows is work for the cube; otherwise for vector units
    gating_float32: bool  # MoeGatingTopKSoftmax takes float32 logits; otherwise float16 only
    gating_rows: int  # most tokens that it takes at once; 0 is any number
    gating_experts: int  # most experts that it takes; 0 is any number
    gating_expert_multiple: int  # of which the number of experts must be one
    routing_width_multiple: int  # of which the width of rows in MoeInitRouting must be one
    has_expert_parallel: bool  # grouped products may leave rows out, those of experts on other chips
    rotary_modes: tuple[str, ...]  # of ApplyRotaryPosEmb
    rotary_heads: int  # most heads of query and key together in one ApplyRotaryPosEmb
    rotary_on_views: bool  # ApplyRotaryPosEmb may rotate columns of a wider tensor in place
    compressed_mask_keys: int  # most keys that the fixed mask of paged attention serves; 0 is any number
    device_random: bool  # the device draws random numbers; otherwise they come from the host
    int64_sums: bool  # the device adds int64 at any length; otherwise towers' lengths are worked out on the host
    events_per_collective: int  # that a captured collective holds
    graphs_with_collectives: int  # most graphs that are captured with collectives in them; 0 is any number
    compensated_products: bool  # sums that outlive a step are put together from products of float16 halves
    token_scaled_products: bool  # int8 products take a scale for each token


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """What the plugin, the command line and the emulator know of one chip. Sources are comments in chips.toml."""

    name: str
    family: str
    soc_version: str
    products: tuple[str, ...]
    product: Literal["atlas_inference", "a2", "a3", "a5"]
    soc_id: int
    npu_arch: int
    chips_per_card: int
    chips_per_server: int  # of the usual server: what the emulator shows unless told otherwise
    npu_smi_layout: Literal["device", "chip", "phy_id"]

    memory_mib: tuple[int, ...]  # as npu-smi shows it, by position on the card
    usable_memory_mib: tuple[int, ...]  # as PyTorch sees it
    memory_kind: str
    cube_cores: int
    vector_cores: int
    cube_mhz: int
    vector_mhz: int
    l2_mib: int
    bandwidth_gbps: float
    fp16_tflops: float
    int8_tops: float
    power_w: float
    launch_us: float  # of the smallest operator; this and the shares of peaks come from time_model.toml
    bandwidth_share: float
    cube_share: float
    l2_share: float  # of the memory's peak, for vector operators whose tensors fit into the second-level cache
    card_link: Link
    node_link: Link

    model_dtypes: tuple[str, ...]  # dtypes a model can run in, best first
    matmul_dtypes: tuple[str, ...]
    weight_only_dtypes: tuple[str, ...]  # of weights that multiply activations of sixteen bits
    weight_format: Literal["nz", "nd"]
    matmul_nz_min_dim: int
    kv_cache_format: Literal["nz", "nd"]
    attention: Literal["paged_nz", "fused_infer"]
    kv_block_sizes: tuple[int, ...]  # best first
    kv_block_head_limit: int  # of block_size * head_size; 0 is none
    swiglu_alignment: int
    rotary_head_sizes: tuple[int, ...]
    has_rotary_mul: bool
    has_graphs: bool
    graph_lengths_on_device: bool
    has_triton: bool
    has_top_k_top_p: bool
    has_moe_all_to_all: bool
    has_infinity: bool
    max_streams: int
    max_events: int
    max_notifies: int
    forms: Forms

    image_suffix: str
    kubernetes_resources: Mapping[str, str]  # by flavor of device plugin
    fp8_tflops: float = 0.0  # 0 where the cube has no fp8
    server_link: Link | None = None  # of the chips of one server with those of another; None where HCCL joins none
    server_step_tokens: int = 0  # that a server puts into a step unless told otherwise; 0 is vLLM's own choice

    @property
    def preferred_dtype(self) -> str:
        return self.model_dtypes[0]

    @property
    def has_bf16(self) -> bool:
        return "bfloat16" in self.model_dtypes

    @property
    def rounds_float32_products(self) -> bool:
        """Whether the cube has no float32, so that operators round float32 matrices to float16 before they multiply.

        Source: ops-nn, matmul/mat_mul_v3/docs/aclnnMm.md, cubeMathType 1 on Atlas inference products.
        """
        return "float32" not in self.matmul_dtypes

    @property
    def has_full_hccl(self) -> bool:
        """Whether HCCL has Send, Receive and Broadcast and joins servers; on Atlas inference products it does neither.

        Source: hccl, docs/zh/user_guide/constraints.md and the product tables of api_ref/comm_op_interface.
        """
        return self.product != "atlas_inference"

    @property
    def has_fp8(self) -> bool:
        return self.fp8_tflops > 0

    def link_of(self, ranks: int) -> Link:
        """The slowest link among this many neighbouring chips: the card's, the server's, or the network's."""
        if ranks <= self.chips_per_card:
            return self.card_link
        if ranks <= self.chips_per_server or self.server_link is None:
            return self.node_link
        return self.server_link

    def usable_memory_bytes(self, chip_index: int = 0) -> int:
        """Memory that PyTorch sees on chip `chip_index` of the machine (the chips of one Duo card differ)."""
        return self.usable_memory_mib[chip_index % len(self.usable_memory_mib)] << 20

    def kv_block_size(self, head_size: int) -> int:
        """Largest block size that attention takes for this head size; UnsupportedHeadSize if there is none."""
        for block_size in self.kv_block_sizes:
            if not self.kv_block_head_limit or block_size * head_size <= self.kv_block_head_limit:
                return block_size
        raise UnsupportedHeadSize(
            f"{self.name} attention takes no head size above {self.kv_block_head_limit // min(self.kv_block_sizes)}; "
            f"this model has {head_size}. Use a model with smaller heads, or another chip."
        )


class UnsupportedHeadSize(ValueError):
    """No KV block size of the chip fits the model's head size."""


def _typed(field_name: str, hint: Any, value: Any, where: str) -> Any:
    if hint in (Link, Link | None):
        return Link(**value)
    if hint is Forms:
        return _forms(value, f"{where}, forms")
    if isinstance(value, list):
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ChipTableError(f"{where}: {field_name} is {value!r}, expected {hint.__name__}.")
    return value


def _forms(entry: Mapping[str, Any], where: str) -> Forms:
    hints = get_type_hints(Forms)
    if unknown := sorted(entry.keys() - hints.keys()):
        raise ChipTableError(f"{where}: unknown field {', '.join(unknown)}.")
    try:
        return Forms(**{key: _typed(key, hints[key], value, where) for key, value in entry.items()})
    except TypeError as error:
        raise ChipTableError(f"{where}: {error}.") from error


def with_forms(chip: ChipSpec, found: Mapping[str, Any], where: str) -> ChipSpec:
    """The chip with some of its forms as found on the installed software. Raises ChipTableError; `where` names them."""
    current = {field.name: getattr(chip.forms, field.name) for field in fields(Forms)}
    return replace(chip, forms=_forms({**current, **found}, where))


def _timed(family: str, constants: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    """The family's constants of time but for the time of a step, which belongs to its links."""
    if family not in constants:
        raise ChipTableError(f"{where}: {CONSTANTS.name} has no constants of family {family!r}.")
    return {key: value for key, value in constants[family].items() if key not in ("from", "step_us")}


def _with_step(link: Any, step_us: float) -> Any:
    return link if "latency_us" in link or not link["gbps"] else {**link, "latency_us": step_us}


def _build(
    entry: Mapping[str, Any],
    families: Mapping[str, Mapping[str, Any]],
    constants: Mapping[str, Mapping[str, Any]],
    where: str,
) -> ChipSpec:
    family = entry.get("family", "")
    if family not in families:
        raise ChipTableError(f"{where}: family {family!r} is not one of {', '.join(families)}.")
    merged = {**families[family], **_timed(family, constants, where), **entry}
    for name in ("card_link", "node_link"):
        merged[name] = _with_step(merged[name], constants[family]["step_us"])
    merged["forms"] = {**families[family].get("forms", {}), **entry.get("forms", {})}
    hints = get_type_hints(ChipSpec)
    known = {field.name for field in fields(ChipSpec)}
    if unknown := sorted(merged.keys() - known):
        raise ChipTableError(f"{where}: unknown field {', '.join(unknown)}.")
    try:
        return ChipSpec(**{key: _typed(key, hints[key], value, where) for key, value in merged.items()})
    except TypeError as error:
        raise ChipTableError(f"{where}: {error}.") from error


def load(path: Path = TABLE, constants: Path = CONSTANTS) -> tuple[ChipSpec, ...]:
    """Every chip of a table, in file order. Raises ChipTableError if an entry does not fit ChipSpec."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    times = tomllib.loads(constants.read_text(encoding="utf-8"))["families"]
    return tuple(
        _build(entry, document["families"], times, f"{path.name}, chip {entry.get('name', '?')}")
        for entry in document["chips"]
    )


@cache
def chips() -> tuple[ChipSpec, ...]:
    """Every chip that this release knows."""
    return load()


def _normalized(name: str) -> str:
    return name.strip().lower().removeprefix("huawei").strip().removeprefix("ascend").lstrip("-_ ")


def find(name: str) -> ChipSpec:
    """The chip of a name ("310P3"), SoC version ("Ascend310P3"), product ("Atlas 300I Duo") or family ("310p").

    Case does not matter. A SoC version outside the table resolves to its closest relative: Ascend950DT_9588 to
    950DT, Ascend910B4-1 to 910B4, Ascend310P5 to 310P3. Raises UnknownChip otherwise.
    """
    wanted = _normalized(name)
    for chip in chips():
        names = (chip.name, chip.soc_version, *chip.products)
        if wanted in {_normalized(candidate) for candidate in names}:
            return chip
    # CANN names another bin or a virtual slice of a chip by appending to its name: 310P3vir04, 950DT_9588.
    for chip in chips():
        if wanted.startswith(_normalized(chip.name)):
            return chip
    for chip in chips():
        if wanted.startswith(chip.family):
            return chip
    raise UnknownChip(f"Unknown chip {name!r}: choose one of {', '.join(chip.name for chip in chips())}.")


def is_known(name: str) -> bool:
    """Whether a name is a chip's, a bin's of one, a product's or a family's, and not a chip that is only related."""
    wanted, spec = _normalized(name), find(name)
    return (
        wanted == spec.family
        or wanted.startswith(_normalized(spec.name))
        or wanted in {_normalized(candidate) for candidate in (spec.soc_version, *spec.products)}
    )


def by_soc_id(soc_id: int) -> ChipSpec:
    """The chip of torch_npu's numeric SoC version (torch_npu.npu.get_soc_version()). Raises UnknownChip."""
    for chip in chips():
        if chip.soc_id == soc_id:
            return chip
    raise UnknownChip(
        f"Unknown SoC version {soc_id}: torch_npu numbers the known chips "
        f"{', '.join(f'{chip.name} {chip.soc_id}' for chip in chips())}."
    )
