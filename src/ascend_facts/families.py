"""What a family of models has that its config.json does not say: a typed view of families.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

TABLE = Path(__file__).with_name("families.toml")


@dataclass(frozen=True, slots=True)
class Family:
    """The form of a family's layers; see families.toml for each field."""

    matrices: int = 3
    bias: Literal["", "qkv", "qkvo"] = ""
    out_bias: str = ""  # the field of config.json that says whether the output projection has one
    mlp_bias: bool = False
    norm_values: int = 1
    norms: int = 2
    extra_norms: int = 0
    qk_norm: Literal["", "head", "width"] = ""
    tied: bool = False
    positions: int | None = None
    head_bias: bool = False
    encoder: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


@cache
def families() -> Mapping[str, Family]:
    """Every family whose counts are held by published totals, by model_type."""
    document = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Family(**entry) for name, entry in document.items()}


UNKNOWN = Family()


def family_of(model_type: str) -> Family:
    """The form of a model_type; the commonest one where the table has none."""
    return families().get(model_type, UNKNOWN)
