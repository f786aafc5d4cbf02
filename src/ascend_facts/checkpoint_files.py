"""Whether the files of a checkpoint can be what they say: headers, lengths, index, shapes, and samples of the values.

Nothing here loads a model: a broken file is named in a second, before minutes are spent on the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from ascend_facts.safetensors_file import AGAIN, BITS_OF_DTYPE, INDEX, BrokenCheckpoint, Header, read_header


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its bytes lie in its file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file
    end: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's safetensors files. Raises BrokenCheckpoint."""
    found: dict[str, StoredTensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    own = [file for file in files if not file.name.startswith("consolidated")] or files
    for file in own:
        for tensor in _entries(file, read_header(file)):
            found[tensor.name] = tensor
    _check_index(folder, found)
    return found


def _entries(file: Path, header: Header) -> Iterator[StoredTensor]:
    """The header's entries, whose bytes must follow each other to the file's end."""
    reached = 0
    data, size = header.data_start, header.size_bytes
    entries = list(header.entries)
    if not all(isinstance(entry, dict) for _, entry in entries):
        raise BrokenCheckpoint(f"{file} has a broken header: {AGAIN}")
    for name, entry in sorted(entries, key=lambda one: _offsets(file, *one)):
        start, end = _offsets(file, name, entry)
        dtype, shape = entry.get("dtype"), entry.get("shape")
        if not isinstance(dtype, str) or dtype not in BITS_OF_DTYPE or not _is_shape(shape):
            raise BrokenCheckpoint(f"{file}: {name[:200]} has dtype {dtype!r} and shape {str(shape)[:60]}: {AGAIN}")
        if start != reached or (end - start) * 8 != prod(shape) * BITS_OF_DTYPE[dtype]:
            raise BrokenCheckpoint(f"{file}: {name[:200]} does not fill its place in the file: {AGAIN}")
        if data + end > size:
            raise BrokenCheckpoint(f"{file} is cut short within {name[:200]}: {AGAIN}")
        reached = end
        yield StoredTensor(name, file, dtype, tuple(shape), data + start, data + end)
    if data + reached != size:
        raise BrokenCheckpoint(f"{file} is {size - data - reached} bytes longer than its header says: {AGAIN}")


def _offsets(file: Path, name: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    offsets: Any = entry.get("data_offsets")
    if not _is_shape(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BrokenCheckpoint(f"{file}: {name[:200]} has no place in the file: {AGAIN}")
    return offsets[0], offsets[1]


def _is_shape(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 48 for one in value)


def _check_index(folder: Path, found: Mapping[str, StoredTensor]) -> None:
    index = folder / INDEX
    if not index.exists():
        return
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(name, str) and isinstance(file, str) for name, file in places.items()):
            raise ValueError("names")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenCheckpoint(f"{index} cannot be read: {AGAIN}") from error
    for name, file in places.items():
        if not (folder / file).exists():
            raise BrokenCheckpoint(f"{folder / file} is missing, which {INDEX} names: download it")
        if name not in found or found[name].file.name != file:
            raise BrokenCheckpoint(f"{folder / file} lacks {name[:200]}, which {INDEX} puts there: {AGAIN}")


# ------------------------------------------------------------------ what the tensors must be for the model

LAYER = re.compile(r"^(?P<stem>.*?\blayers)\.(?P<layer>\d+)\.(?P<rest>.+)$")
STEM = "model.layers"
# Families whose layers are what the sizes in config.json say; others are left to vLLM's loader.
PLAIN = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "qwen2_moe", "smollm3")
FLOATS = ("F16", "BF16", "F32", "F64")
PROJECTIONS = re.compile(r"(?:_proj|\bqkv|\bw[123]|dense\w*|fc[12]|_norm|layernorm)\.weight$")


POSITIVE = ("hidden_size", "num_hidden_layers", "vocab_size")
DTYPES = ("float16", "bfloat16", "float32", "float64", "half", "float", "auto")
OR_NULL = ("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings")


def check_config(file: Path, config: Mapping[str, Any]) -> None:
    """Sizes that no model has, in config.json or its text_config. Raises BrokenCheckpoint."""
    inner = config.get("text_config")
    for prefix, sizes in (("", config), ("text_config.", inner if isinstance(inner, dict) else {})):
        for name in (*POSITIVE, *OR_NULL):
            value = sizes.get(name)
            if isinstance(value, list) or (value is None and (name not in sizes or name in OR_NULL)):
                continue  # of each layer, in some families
            if type(value) is not int or not 0 < value < 1 << 32:
                raise BrokenCheckpoint(
                    f"{file}: {prefix}{name} is {str(value)[:60]!r}, and has to be a number from 1: {AGAIN}"
                )
    for name in ("dtype", "torch_dtype"):
        value = config.get(name)
        if value is not None and str(value).removeprefix("torch.") not in DTYPES:
            raise BrokenCheckpoint(
                f"{file}: {name} is {str(value)[:60]!r}, and has to be one of {', '.join(DTYPES)}: {AGAIN}"
            )
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and all(isinstance(one, str) for one in architectures)
    if architectures is not None and not named:
        raise BrokenCheckpoint(
            f"{file}: architectures is {str(architectures)[:60]!r}, and has to be a list of names: {AGAIN}"
        )


def check_model(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Tensors that are missing, and shapes or dtypes that the config contradicts. Raises BrokenCheckpoint."""
    if "quantization_config" not in config:
        for tensor in tensors.values():
            if PROJECTIONS.search(tensor.name) and tensor.dtype not in FLOATS:
                raise BrokenCheckpoint(
                    f"{tensor.file}: {tensor.name} has dtype {tensor.dtype} and nothing in the folder says how to read "
                    "it: get the file that describes the quantization, or the checkpoint in float16"
                )
    _check_layers(folder, config, tensors)
    if config.get("model_type") in PLAIN and "quantization_config" not in config:
        _check_plain(folder, config, tensors)


def _check_layers(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """A projection or norm that every layer has but one, and layers that are not there at all."""
    layers: dict[int, set[str]] = {}
    for name in tensors:
        if (found := LAYER.match(name)) and found["stem"] == STEM:
            layers.setdefault(int(found["layer"]), set()).add(found["rest"])
    count = config.get("num_hidden_layers")
    if not layers or not isinstance(count, int):
        return
    for layer in range(count):
        if layer not in layers:
            raise BrokenCheckpoint(f"{folder} has no tensor of layer {layer} of {count} (config.json): {AGAIN}")
    if config.get("model_type") in PLAIN and max(layers) >= count:
        raise BrokenCheckpoint(
            f"{folder} has tensors of layer {max(layers)}, and config.json makes {count} layers: "
            "the two are not of the same model"
        )
    if len(layers) < 3:
        return
    seen: dict[str, int] = {}
    for names in layers.values():
        for name in names:
            seen[name] = seen.get(name, 0) + 1
    for name, times in seen.items():
        if times == len(layers) - 1 and PROJECTIONS.search(name):
            layer = next(number for number, names in layers.items() if name not in names)
            if layer or not name.endswith("norm.weight"):  # a first layer may go without a norm
                raise BrokenCheckpoint(f"{folder} lacks {STEM}.{layer}.{name}, which every other layer has: {AGAIN}")


def _check_plain(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    sizes = _sizes(config)
    if sizes is None:
        return
    for name, tensor in tensors.items():
        found = LAYER.match(name)
        key = found["rest"] if found and found["stem"] == STEM else name
        wanted = sizes.get(re.sub(r"mlp\.experts\.\d+\.", "experts.", key))
        if wanted is not None and tensor.shape != wanted:
            raise BrokenCheckpoint(
                f"{tensor.file}: {name} is {list(tensor.shape)} and config.json makes it {list(wanted)}: "
                "the two are not of the same model"
            )
    needed = ["model.embed_tokens.weight", "model.norm.weight"]
    if not config.get("tie_word_embeddings") and "ForCausalLM" in str(config.get("architectures")):
        needed.append("lm_head.weight")
    needed += [
        f"{STEM}.{layer}.self_attn.{part}_proj.weight"
        for layer in range(config["num_hidden_layers"])
        for part in ("q", "k", "v", "o")
    ]
    for name in needed:
        if name not in tensors:
            raise BrokenCheckpoint(f"{folder} lacks {name}: {AGAIN}")


def _sizes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "intermediate_size")
    if not all(type(config.get(name)) is int and config[name] > 0 for name in names):
        return None
    hidden, heads, vocabulary = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
    groups = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or hidden // heads
    if type(groups) is not int or type(size) is not int:
        return None
    inner, expert = config["intermediate_size"], config.get("moe_intermediate_size")
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (heads * size, hidden),
        "self_attn.k_proj.weight": (groups * size, hidden),
        "self_attn.v_proj.weight": (groups * size, hidden),
        "self_attn.o_proj.weight": (hidden, heads * size),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if type(expert) is int:
        found |= {"experts.gate_proj.weight": (expert, hidden), "experts.up_proj.weight": (expert, hidden)}
        found["experts.down_proj.weight"] = (hidden, expert)
    return found


# ------------------------------------------------------------------ values

WHOLE_BYTES = 1 << 30  # checkpoints up to this are read whole
SAMPLE_BYTES = 1 << 14  # of each tensor of larger ones: its first and its last


def check_values(tensors: Mapping[str, StoredTensor]) -> None:
    """NaN and infinity in the values that are looked at. Raises BrokenCheckpoint."""
    whole = sum(tensor.end - tensor.start for tensor in tensors.values()) <= WHOLE_BYTES
    for tensor in tensors.values():
        if tensor.dtype in ("F16", "BF16", "F32"):
            for start, end in _places(tensor, whole):
                if _is_broken(tensor, start, end):
                    raise BrokenCheckpoint(f"{tensor.file}: {tensor.name} holds NaN or infinity: {AGAIN}")


def _places(tensor: StoredTensor, whole: bool) -> list[tuple[int, int]]:
    if whole or tensor.end - tensor.start <= 2 * SAMPLE_BYTES:
        return [(tensor.start, tensor.end)]
    return [(tensor.start, tensor.start + SAMPLE_BYTES), (tensor.end - SAMPLE_BYTES, tensor.end)]


def _is_broken(tensor: StoredTensor, start: int, end: int) -> bool:
    """Whether an exponent has all its bits set, which is infinity or NaN in each of these formats."""
    import numpy

    kind, mask = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000)}[tensor.dtype]
    with tensor.file.open("rb") as content:
        content.seek(start)
        values = numpy.frombuffer(content.read(end - start), kind)
    return bool(((values & mask) == mask).any())
