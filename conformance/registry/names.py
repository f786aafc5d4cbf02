"""Which architectures vLLM knows, read from its registry's source: importing it would import torch."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Kind = Literal["text generation", "pooling", "multimodal"]
DATA = Path(__file__).with_name("registry.toml")

TABLES: Mapping[str, Kind] = {
    "_TEXT_GENERATION_MODELS": "text generation",
    "_EMBEDDING_MODELS": "pooling",
    "_LATE_INTERACTION_MODELS": "pooling",
    "_REWARD_MODELS": "pooling",
    "_TOKEN_CLASSIFICATION_MODELS": "pooling",
    "_SEQUENCE_CLASSIFICATION_MODELS": "pooling",
}
WITH_MEDIA = "_MULTIMODAL_MODELS"  # run as rows of multimodal.toml, by `python -m conformance NAME`


@cache
def registered() -> Mapping[str, tuple[Kind, str, str]]:
    """(kind, vLLM's table, module) of each architecture that generates or pools text, in vLLM's order."""
    return _read(TABLES)


@cache
def with_media() -> Mapping[str, str]:
    """The module of each architecture that generates from pictures, films or sounds."""
    return {name: module for name, (_, _, module) in _read({WITH_MEDIA: "multimodal"}).items()}


@cache
def of_the_same_class() -> Mapping[str, tuple[str, ...]]:
    """For each architecture with media the other names under which vLLM has the very same class."""
    places = {name: (module, class_name) for _, name, module, class_name in _entries() if name in with_media()}
    return {
        name: tuple(other for other, elsewhere in places.items() if elsewhere == place and other != name)
        for name, place in places.items()
    }


def _read(tables: Mapping[str, Kind]) -> dict[str, tuple[Kind, str, str]]:
    found: dict[str, tuple[Kind, str, str]] = {}
    for table, name, module, _ in _entries():
        if table in tables:
            found.setdefault(name, (tables[table], table, module))
    return found


def _entries() -> Iterator[tuple[str, str, str, str]]:
    """(table, architecture, module, class) of every entry of vLLM's tables, in its order."""
    package = find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        raise ImportError("vLLM is not installed: its registry says what there is to run.")
    path = Path(package.submodule_search_locations[0]) / "model_executor" / "models" / "registry.py"
    wanted = {*TABLES, WITH_MEDIA}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            table = getattr(node.targets[0], "id", "")
            pairs = zip(node.value.keys, node.value.values, strict=True) if table in wanted else ()
            for key, value in pairs:
                if isinstance(key, ast.Constant):
                    yield table, str(key.value), *ast.literal_eval(value)[:2]


def unbuildable(name: str) -> str | None:
    """Why nothing at hand has an architecture's mathematics; None where transformers has them.

    Asked of the names that transformers lists: to ask for a class imports it, and torch with it.
    """
    import transformers

    entry = data().get(name, {})
    if "unbuildable" in entry:
        return str(entry["unbuildable"])
    if (model_class := entry.get("model_class", name)) not in dir(transformers):
        return f"transformers {transformers.__version__} has no {model_class}"
    return None


@cache
def data() -> Mapping[str, Mapping[str, Any]]:
    """What registry.toml says of architectures that the general rules do not build."""
    return dict(tomllib.loads(DATA.read_text(encoding="utf-8")).get("architectures", {}))
