"""The tensors of a checkpoint, counted from the headers of its safetensors files: exact, and no weight is read."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from ascend_facts.model_shape import Kind, ModelShape, Weights
from ascend_facts.safetensors_file import BITS_OF_DTYPE, INDEX, BrokenCheckpoint, read_header

LARGEST_INDEX_BYTES = 64 << 20  # a name of each tensor, a model of 100,000 tensors has ten megabytes
FILE_NAME = re.compile(r"[^/\x00-\x1f][^\x00-\x1f]{0,254}\.safetensors")
PACKED_NAMES = ("qweight", "weight_packed", "blocks")  # several weights to a value
SCALE_NAMES = (
    "scales",
    "qzeros",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "weight_offset",
    "weight_zero_point",
    "weight_g_idx",
    "weight_shape",
    "input_scale",
    "input_offset",
    "input_zero_point",
    "quant_bias",
    "deq_scale",
    "k_scale",
    "v_scale",
)
LAYER_NUMBER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")
TOWERS = ("visual.", "vision_tower.", "vision_model.", "vision.", "multi_modal_projector.", "mlp1.", "audio_tower.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as a header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.values * BITS_OF_DTYPE[self.dtype] // 8

    def weights(self, bits: int) -> int:
        """Weights that it holds: packed ones of `bits` bits each share a value."""
        if self.name.rpartition(".")[2] in PACKED_NAMES or (bits == 4 and self.dtype in ("I8", "U8")):
            return self.values * BITS_OF_DTYPE[self.dtype] // bits
        return self.values


def tensors(folder: Path) -> Iterator[Tensor]:
    """Every tensor of a folder's safetensors files. Raises BrokenCheckpoint."""
    for file in sorted(folder.glob("*.safetensors")):
        if file.name.startswith("consolidated") and any(folder.glob("model*.safetensors")):
            continue  # Mistral ships the same weights twice
        yield from _tensors(file)


def _tensors(file: Path) -> Iterator[Tensor]:
    for name, entry in read_header(file).entries:
        dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
        sizes = shape if isinstance(shape, list) else None
        if dtype not in BITS_OF_DTYPE or sizes is None or not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise BrokenCheckpoint(f"{file} describes {name[:80]!r} in a way that is not known: download it again")
        yield Tensor(name, dtype, tuple(sizes))


def indexed_files(folder: Path) -> set[str]:
    """Names of the files that the weights' index promises; empty without an index.

    Raises BrokenCheckpoint for an index that is broken, or names what is no file of this folder.
    """
    index = folder / INDEX
    try:
        if not index.is_file():
            if index.is_symlink() or index.exists():
                raise BrokenCheckpoint(f"{INDEX} is no file: download it again")
            return set()
        if index.stat().st_size > LARGEST_INDEX_BYTES:
            raise BrokenCheckpoint(f"{INDEX} is larger than any index: download it again")
        names = set(json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, BrokenCheckpoint):
            raise
        raise BrokenCheckpoint(f"{INDEX} cannot be read ({type(error).__name__}): download it again") from error
    for name in names:
        if not isinstance(name, str) or FILE_NAME.fullmatch(name) is None or ".." in name.split("/"):
            raise BrokenCheckpoint(f"{INDEX} names {str(name)[:80]!r}, which is no file of weights")
    return names


def is_complete(folder: Path) -> bool:
    """Whether every file that the index names is there; a folder without an index needs one file at least."""
    try:
        files = indexed_files(folder)
    except BrokenCheckpoint:
        return False
    return all((folder / name).is_file() for name in files) if files else any(folder.glob("*.safetensors"))


def measured(shape: ModelShape, folder: Path) -> ModelShape:
    """The shape with its parameters counted from the checkpoint's tensors; unchanged where weights are missing.

    Raises BrokenCheckpoint for a broken file.
    """
    if not is_complete(folder):
        return shape
    counted: dict[tuple[Kind, bool], int] = defaultdict(int)
    for tensor in tensors(folder):
        kind = _kind(tensor, shape)
        if kind is None:
            continue
        quantized = _is_quantized(tensor, kind, shape)
        counted[kind, quantized] += tensor.weights(shape.stored.bits if quantized else 16)
    if not counted:
        return shape
    return replace(shape, weights=tuple(_as_weights(shape, counted)), is_counted=True)


def _kind(tensor: Tensor, shape: ModelShape) -> Kind | None:
    """Which part of the model a tensor belongs to; None for what serving does not load."""
    name = tensor.name
    last = name.rpartition(".")[2]
    if last in SCALE_NAMES or "rotary_emb" in name:
        return None  # the share of scales is the format's
    if name.startswith(("mtp.", "model.mtp.")) or _is_draft(name, shape):
        return None  # multi-token prediction: loaded for speculation only
    if any(name.startswith(tower) or f".{tower}" in name[:40] for tower in TOWERS):
        return "vision"
    if name.startswith(("lm_head.", "output.", "embed_out.")) or ".lm_head." in name:
        return None if shape.has_tied_head else "lm_head"
    if not LAYER_NUMBER.search(name):
        return "embedding" if len(tensor.shape) == 2 else "norms"
    if ".experts." in name or ".experts_" in name:
        return "experts" if shape.has_experts else "mlp"
    if len(tensor.shape) == 1:
        return "norms"
    if name.endswith((".gate.weight", ".router.weight")):
        return "router" if shape.has_experts else "mlp"
    if any(part in name for part in (".linear_attn.", ".mamba.", ".mixer.")):
        return "linear attention"
    return "attention" if any(part in name for part in ("attn", "attention", "query_key_value")) else "mlp"


def _is_draft(name: str, shape: ModelShape) -> bool:
    number = LAYER_NUMBER.search(name)
    return number is not None and ".layers." in number[0] and int(number[1]) >= shape.layers


def _is_quantized(tensor: Tensor, kind: Kind, shape: ModelShape) -> bool:
    """Whether a format of fewer bits holds this tensor; in a plain checkpoint, whether one would."""
    if kind not in ("attention", "linear attention", "mlp", "experts"):
        return False
    if shape.quantization is None:
        return True
    return BITS_OF_DTYPE[tensor.dtype] == 8 or tensor.name.rpartition(".")[2] in PACKED_NAMES


def _as_weights(shape: ModelShape, counted: dict[tuple[Kind, bool], int]) -> Iterator[Weights]:
    experts = next((weights for weights in shape.weights if weights.experts), None)
    whole = ("norms", "router")
    for (kind, quantized), parameters in counted.items():
        if kind == "experts" and experts is not None:
            share = parameters * experts.experts_per_token // experts.experts
            yield Weights(kind, parameters, share, True, quantized, experts.experts, experts.experts_per_token)
        else:
            per_token = 0 if kind in ("embedding", "vision") else parameters
            yield Weights(kind, parameters, per_token, kind not in whole, quantized)
    if shape.has_tied_head:
        yield Weights("lm_head", 0, shape.vocab_size * shape.hidden_size, split=True, quantized=False)
