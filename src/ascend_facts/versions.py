"""The supported row of versions (versions.toml), for those who compare with it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Versions that are used together; of torch (and torch_npu, which has the same) the tested one comes first."""

    vllm: str
    transformers: str
    pythons: tuple[str, ...]
    torch: tuple[str, ...]
    torchvision: tuple[str, ...]  # the release for each torch

    @property
    def tested_torch(self) -> str:
        return self.torch[0]

    def has_vllm(self, version: str) -> bool:
        """Whether this is a build of the row's release of vLLM: 0.33.0, 0.33.0+empty, but not 0.33.1 or 0.33.0rc1."""
        return version.partition("+")[0] == self.vllm


@cache
def row() -> Row:
    table = tomllib.loads(Path(__file__).with_name("versions.toml").read_text(encoding="utf-8"))
    lists = (tuple(table[name]) for name in ("pythons", "torch", "torchvision"))
    return Row(table["vllm"], table["transformers"], *lists)
