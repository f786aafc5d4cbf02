"""A checkpoint's folder looked through before a server is started on it: in a second, and in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascend_cli.errors import UsageError
from ascend_cli.serving.templates import check_templates
from ascend_facts.checkpoint_files import check_model, check_values, stored_tensors
from ascend_facts.quantized_format import MODELSLIM_DESCRIPTION, MODELSLIM_KIND
from ascend_facts.safetensors_file import LFS, BrokenCheckpoint

JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", MODELSLIM_DESCRIPTION)
MUST_BE_OBJECTS = ("config.json", MODELSLIM_DESCRIPTION)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")


def check_checkpoint(folder: Path) -> None:
    """Refuse what cannot be served, by file and tensor. Raises UsageError."""
    documents = {name: _document(folder / name) for name in JSON_FILES if _is_there(folder / name)}
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for pattern in PICKLES for file in folder.glob(pattern)]
        if pickles:
            raise UsageError(
                f"{folder} holds pickles only ({pickles[0]}), which run code when they are read: get the model as "
                "safetensors, or convert it on a machine that you can lose"
            )
        return
    config = documents.get("config.json", {})
    described = documents.get(MODELSLIM_DESCRIPTION)
    if isinstance(described, dict):
        _check_description(folder / MODELSLIM_DESCRIPTION, described)
        config = {"quantization_config": {}} | config
    _check_quantization(folder / "config.json", config)
    try:
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
        return False
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): mend that, or download it again") from error
    return True


def _document(file: Path) -> Any:
    if not file.is_file():
        raise UsageError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}: download it again")
    try:
        content = file.read_bytes()
        if content.startswith(LFS):
            raise UsageError(f"{file} is a pointer of Git LFS: run `git lfs pull` in its folder")
        parsed = json.loads(content)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): mend that, or download it again") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} holds no JSON that can be read: download it again") from error
    if file.name in MUST_BE_OBJECTS and not isinstance(parsed, dict):
        raise UsageError(f"{file} holds no object: download it again")
    return parsed


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
