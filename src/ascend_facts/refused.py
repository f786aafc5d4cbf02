"""Architectures that are known not to run here: the reason and what to use instead, as one sentence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def _reasons() -> Mapping[str, tuple[str, str]]:
    document = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        name: (entry["reason"], entry["instead"]) for entry in document["refused"] for name in entry["architectures"]
    }


def refusal(architecture: str, module: str = "") -> str | None:
    """Why no chip here runs an architecture, and what to do; None where nothing is known against it.

    module: vLLM's, where it has the model; whole folders of it are for CUDA and ROCm.
    """
    if (known := _reasons().get(architecture)) is not None:
        return sentence(architecture, *known)
    if module.startswith("vllm.models."):
        return (
            f"Use another model (`ascend models` lists those that were run): vLLM has {architecture} for CUDA and ROCm "
            f"only ({module})."
        )
    return None


def sentence(architecture: str, reason: str, instead: str) -> str:
    return f"Use another model, such as {instead}: {architecture} does not run on Ascend here, because {reason}."
