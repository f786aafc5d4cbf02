"""A checkpoint's folder looked through before a server is started on it: in a second, and in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascend_cli.errors import UsageError
from ascend_cli.serving.templates import check_templates
from ascend_facts.checkpoint_files import check_config, check_model, check_values, stored_tensors
from ascend_facts.quantized_format import MODELSLIM_DESCRIPTION, MODELSLIM_KIND
from ascend_facts.safetensors_file import LFS, BrokenCheckpoint

OBJECTS = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json"),
    *("special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", "processor_config.json"),
    *("adapter_config.json", "params.json", "hf_quant_config.json", MODELSLIM_DESCRIPTION),
)
LARGEST_JSON_BYTES = 512 << 20  # an order of magnitude beyond the largest tokenizer
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")


def check_checkpoint(folder: Path) -> None:
    """Refuse what cannot be served, by file and tensor. Raises UsageError."""
    documents = {name: _document(folder / name) for name in OBJECTS if _is_there(folder / name)}
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for pattern in PICKLES for file in folder.glob(pattern)]
        if pickles:
            raise UsageError(
                f"{folder} holds pickles only ({pickles[0]}), which run code when they are read: get the model as "
                "safetensors, or convert it on a machine that you can lose"
            )
        return
    config = documents.get("config.json", {})
    _check_generation(folder / "generation_config.json", documents.get("generation_config.json", {}))
    described = documents.get(MODELSLIM_DESCRIPTION)
    if isinstance(described, dict):
        _check_description(folder / MODELSLIM_DESCRIPTION, described)
        config = {"quantization_config": {}} | config
    _check_quantization(folder / "config.json", config)
    try:
        check_config(folder / "config.json", config)
        tensors = stored_tensors(folder)
        if not tensors:
            raise BrokenCheckpoint(f"{folder} has safetensors files without a tensor: download them again")
        check_model(folder, config, tensors)
        check_values(tensors)
    except BrokenCheckpoint as broken:
        raise UsageError(str(broken)) from broken
    check_templates(folder, documents.get("tokenizer_config.json"))


def _is_there(file: Path) -> bool:
    """Whether something has this name. Raises UsageError for a circle of links."""
    try:
        file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            raise UsageError(f"{file} points to a file that is not there: get that, or download it again") from None
        return False
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): mend that, or download it again") from error
    return True


def _document(file: Path) -> Any:
    if not file.is_file():
        raise UsageError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}: download it again")
    try:
        if file.stat().st_size > LARGEST_JSON_BYTES:
            raise UsageError(f"{file} is larger than such a file can be: download it again")
        content = file.read_bytes()
        if content.startswith(LFS):
            raise UsageError(f"{file} is a pointer of Git LFS: run `git lfs pull` in its folder")
        parsed = json.loads(content)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): mend that, or download it again") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} holds no JSON that can be read: download it again") from error
    if not isinstance(parsed, dict):
        raise UsageError(f"{file} holds no object: download it again")
    return parsed


NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0, 100),
    "top_k": (-1, 1 << 31),
}


def _check_generation(file: Path, given: dict[str, Any]) -> None:
    """Defaults of sampling, which every request would have."""
    for name, (least, most) in NUMBERS.items():
        value = given.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most
        ):
            raise UsageError(f"{file}: {name} is {str(value)[:60]}, and has to be from {least} to {most}: mend it")
    ends = given.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (type(end) is not int or end < 0):
            raise UsageError(f"{file}: eos_token_id is {str(ends)[:60]}, and has to be a number or numbers: mend it")


def _check_quantization(file: Path, config: dict[str, Any]) -> None:
    described = config.get("quantization_config")
    if described is None:
        config.pop("quantization_config", None)
        return
    method = described.get("quant_method") if isinstance(described, dict) else described
    if not isinstance(described, dict) or (described and not isinstance(method, str | None)):
        raise UsageError(f"{file}: quantization_config is no description of a quantization: download it again")


def _check_description(file: Path, described: dict[str, Any]) -> None:
    """ModelSlim's: each tensor by name, with its kind."""
    for name, kind in described.items():
        if not name.endswith((".weight", ".bias", "_scale", "_offset")):
            continue  # what ModelSlim says of the whole checkpoint
        if not isinstance(kind, str):
            raise UsageError(f"{file}: {name[:200]} has {str(kind)[:60]!r} for a kind: download it again")
        if not MODELSLIM_KIND.fullmatch(kind.upper()):
            raise UsageError(
                f"{file}: {name[:200]} is {kind[:60]!r}, which is no kind that ModelSlim writes: download it again"
            )
