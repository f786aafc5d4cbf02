"""Which model a name means: a folder, a hub repository whose config is at hand, or a built-in card."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ascend_cli.errors import UsageError
from ascend_facts.checkpoint import measured
from ascend_facts.model_shape import ModelShape, UnreadableConfig, read_model_shape
from ascend_facts.quantized_format import MODELSLIM_DESCRIPTION, MODELSLIM_KINDS
from ascend_facts.safetensors_file import BrokenCheckpoint

CARDS = Path(__file__).with_name("cards.toml")
MODELOPT_DESCRIPTION = "hf_quant_config.json"
MISTRAL_PARAMETERS = "params.json"  # Mistral's own releases have no config.json
LARGEST_CONFIG_BYTES = 64 << 20  # descriptions name every tensor of a model
CARD_FIELDS = ("family", "hub", "parameters_b", "active_parameters_b")  # of the card, not of config.json


@dataclass(frozen=True)
class Model:
    """A model whose config is known. `folder` is None if its weights are not on this machine."""

    name: str
    config: Mapping[str, Any]
    source: str  # "folder", "cache" or "card"
    folder: Path | None = None
    hub_id: str | None = None

    @property
    def shape(self) -> ModelShape:
        """Its sizes: parameters counted from the tensors where all weights are here, else from config.json.

        Raises UsageError for a configuration that cannot be read.
        """
        try:
            shape = read_model_shape(self.config)
        except UnreadableConfig as error:
            raise UsageError(f"{self.name}: {error}") from error
        if self.folder is None:
            return shape
        try:
            return measured(shape, self.folder)
        except BrokenCheckpoint:
            return shape  # a broken file is for the loader to name; the plan rests on config.json


@cache
def cards() -> dict[str, dict[str, Any]]:
    """Every built-in card by name, each merged with what its family shares."""
    document = tomllib.loads(CARDS.read_text(encoding="utf-8"))
    families = document["families"]
    return {name: families.get(card.get("family"), {}) | card for name, card in document["cards"].items()}


def find_model(model: str) -> Model:
    """The model that a command line means. Raises UsageError, saying what to give instead, if nothing fits."""
    path = _path(model)
    if path.name == "config.json" and path.is_file():
        path = path.parent
    if path.is_dir():
        return Model(path.resolve().name, _read_config(path), "folder", folder=path.resolve())
    if path.is_absolute() or model.startswith((".", "~")):
        raise UsageError(
            f"{model} does not exist: give a folder with config.json, a hub id or one of `ascend plan --list`"
        )
    for name, card in cards().items():
        hub_id = card["hub"]
        if model.lower() in {name, hub_id.lower(), hub_id.split("/")[1].lower()}:
            cached = _cached_snapshot(hub_id)
            config = {key: value for key, value in card.items() if key not in CARD_FIELDS}
            return Model(name, config, "card", folder=cached, hub_id=hub_id)
    if model.count("/") == 1 and (snapshot := _cached_snapshot(model)):
        return Model(model.split("/")[1], _read_config(snapshot), "cache", folder=snapshot, hub_id=model)
    raise UsageError(
        f"no config is at hand for {model!r}: give a folder with config.json, download it first "
        f"(`ascend serve {model} --download-only`), or take one of `ascend plan --list`"
    )


def _path(model: str) -> Path:
    """The path that a text may be. Raises UsageError for one that no system takes."""
    try:
        path = Path(model).expanduser()
        path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, no such user's home
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{model[:80]!r} is no name of a model ({why}): give a folder with config.json, a hub id or one of "
            "`ascend plan --list`"
        ) from error
    return path


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / MISTRAL_PARAMETERS).is_file():
            return {"architectures": ["MistralForCausalLM"], "model_type": "mistral"} | _json(
                folder / MISTRAL_PARAMETERS
            )
        raise UsageError(f"{folder} has no config.json: give the folder that holds the model's config.json and weights")
    config = _json(file)
    if (folder / MODELSLIM_DESCRIPTION).is_file():
        config.setdefault("quantization_config", _modelslim(folder / MODELSLIM_DESCRIPTION))
    elif "quantization_config" not in config and (folder / MODELOPT_DESCRIPTION).is_file():
        inner = _json(folder / MODELOPT_DESCRIPTION).get("quantization")
        if isinstance(inner, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **inner}
    return config


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError for anything else."""
    try:
        if file.stat().st_size > LARGEST_CONFIG_BYTES:
            raise UsageError(f"{file} is larger than any configuration: download it again")
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise UsageError(f"{file} cannot be read ({why}): download it again") from error
    if not isinstance(document, dict):
        raise UsageError(f"{file} is not a JSON object: download it again")
    return document


def _modelslim(file: Path) -> dict[str, Any]:
    """What ModelSlim says of a checkpoint: the kind it names, or a tensor's that the plugin does not read."""
    kinds = {value for value in _json(file).values() if isinstance(value, str)}
    named = _json(file).get("model_quant_type")
    odd = sorted(kind for kind in kinds if kind.startswith("W") and kind not in MODELSLIM_KINDS)
    kind = odd[0] if odd else named if isinstance(named, str) else "W8A8"
    return {"quant_method": "ascend", "model_quant_type": kind}


def _cached_snapshot(hub_id: str) -> Path | None:
    """The newest snapshot with a config in the hubs' own caches, where vLLM will look for it too."""
    found = [folder for folder in _snapshots(hub_id) if (folder / "config.json").is_file()]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def _snapshots(hub_id: str) -> Iterator[Path]:
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    hugging_face = Path(os.environ.get("HF_HOME", cache_home / "huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", hugging_face / "hub")).expanduser()
    yield from (hub / f"models--{hub_id.replace('/', '--')}" / "snapshots").glob("*")
    model_scope = Path(os.environ.get("MODELSCOPE_CACHE", cache_home / "modelscope")).expanduser()
    for layout in ("hub/models", "models", "hub"):  # ModelScope moved its cache twice
        yield model_scope / layout / hub_id.replace(".", "___")
        yield model_scope / layout / hub_id
