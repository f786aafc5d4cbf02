"""The architectures that the conformance runner knows: `architectures.toml`, typed and checked."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ascend_cli.errors import UsageError

FACTS = "facts.json"  # beside the weights of a checkpoint: what its builder found out about it
BUILDER_VERSION = 1  # raise it when the weights made by checkpoint.py change: cached checkpoints are then rebuilt

TABLES = [Path(__file__).with_name(name) for name in ("architectures.toml", "multimodal.toml")]

LIKENESS = (
    "model_class",
    "published",
    "unset",
    "config",
    "media",
    "processor",
)  # what a row takes over from the one it is `like`

Task = Literal["generate", "embed", "classify", "token_classify"]

# Two or three models that between them cross most code paths: what every commit runs.
QUICK = ("qwen3", "llama3", "qwen3-moe")


@dataclass(frozen=True)
class Architecture:
    """One row of the table of supported models: a published architecture at sizes that a CPU runs in seconds."""

    name: str
    group: str
    model_class: str  # of transformers: the reference
    published: str
    covers: str
    config: Mapping[str, Any]
    task: Task = "generate"
    engine_class: str | None = None  # what config.json names for vLLM, if it is not the reference's
    layout: str | None = None
    scheme: str | None = None  # of quantized.py, if the checkpoint is quantized
    branch_gain: float = 1.0
    impossible: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)  # vLLM's arguments where those of all rows do not do
    extras: tuple[str, ...] = ()  # engine starts beyond those of every architecture, see verify.EXTRAS
    media: Mapping[str, str] = field(default_factory=dict)  # kind -> its placeholder in a prompt, see media.py
    renames: Mapping[str, str] = field(default_factory=dict)  # pattern -> the published name of such weights
    transposed: str = ""  # pattern of the names of weights that the published checkpoint has as [.., in, out]
    processor: Mapping[str, Any] = field(default_factory=dict)  # what reads the media, see multimodal.toml

    def checkpoint_name(self, seed: int) -> str:
        """Name of the folder of its checkpoint: changes with anything that the weights depend on."""
        versions = [metadata.version(name) for name in ("torch", "transformers")]
        facts = [BUILDER_VERSION, seed, versions, self.model_class, self.engine_class, self.layout, self.branch_gain]
        facts += [self.scheme] if self.scheme else []
        facts += ["draft head"] if self.drafts_itself else []
        facts += [dict(self.processor), dict(self.renames)] if self.media else []
        facts += [self.transposed] if self.transposed else []
        digest = hashlib.sha256(json.dumps([*facts, dict(self.config)], sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    @property
    def text_config(self) -> Mapping[str, Any]:
        """Of a model with media the part that reads text."""
        inner: Mapping[str, Any] = self.config.get("text_config", self.config)
        return inner

    @property
    def vocab_size(self) -> int:
        return int(self.text_config["vocab_size"])

    @property
    def drafts_itself(self) -> bool:
        """Whether the checkpoint has a multi-token prediction layer."""
        return "mtp" in self.extras

    @property
    def reads_prompts_whole(self) -> bool:
        """Whether tokens of a prompt see one another (a prefix LM): the reference must know where prompts end."""
        return bool(self.config.get("prefix_lm"))

    @property
    def needs_bfloat16(self) -> bool:
        """Whether vLLM refuses these in fp16 (config/model.py, "Numerical instability")."""
        return self.config["model_type"] in ("gemma2", "gemma3", "gemma3_text", "glm4")

    @property
    def needs_remote_code(self) -> bool:
        """Whether the published checkpoint may bring its configuration class as code: vLLM asks for a flag then."""
        return self.layout is not None


@cache
def architectures() -> Mapping[str, Architecture]:
    """Every known architecture by name, in the order of the table."""
    documents = [tomllib.loads(table.read_text()) for table in TABLES]
    defaults = documents[0]["defaults"]
    rows = {name: row for document in documents for name, row in document["architectures"].items()}
    known = {}
    for name, row in rows.items():
        like = rows.get(row.get("like"), {})
        row = {**{key: like[key] for key in LIKENESS if key in like}, **row}
        unset = dict.fromkeys(row.get("unset", ()))  # what TOML cannot write: fields that are None
        row = {key: value for key, value in row.items() if key not in ("like", "unset")}
        lists = {name: tuple(row.get(name, ())) for name in ("faults", "extras")}
        fields = {**row, "config": _config(row, defaults, unset), **lists}
        known[name] = Architecture(name=name, **fields)
    return MappingProxyType(known)


def _config(row: Mapping[str, Any], defaults: Mapping[str, Any], unset: Mapping[str, None]) -> dict[str, Any]:
    """A row's configuration with what all have, in the part that reads text, and its tokens' numbers."""
    config = {**unset, **row["config"]}
    if "media" not in row:
        return {**defaults, **config}
    from conformance.media import resolve, token_numbers

    if "text_config" in config:
        config["text_config"] = {**defaults, **config["text_config"]}
        size = config["text_config"]["vocab_size"]
    else:
        config = {**defaults, **config}
        size = config["vocab_size"]
    resolved: dict[str, Any] = resolve(config, token_numbers(row["processor"]["tokens"], size))
    return resolved


def select(names: list[str], quick: bool = False) -> list[Architecture]:
    """The named architectures (a group's name stands for its members); all, or the quick subset, if none is named."""
    known = architectures()
    chosen: dict[str, Architecture] = {}
    for name in names or (QUICK if quick else known):
        members = [entry for entry in known.values() if name in (entry.name, entry.group)]
        if not members:
            groups = dict.fromkeys(f"'{entry.group}'" for entry in known.values())
            choice = f"{', '.join(known)}, or a group: {', '.join(groups)}"
            raise UsageError(f"no architecture is named {name!r}: use {choice}")
        chosen.update({entry.name: entry for entry in members})
    return list(chosen.values())
