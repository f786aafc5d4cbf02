"""Which of vLLM's tool-call and reasoning parsers a model needs: vLLM asks its users to know."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ascend_cli.registry.cards import Model


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("parsers.toml").read_text(encoding="utf-8"))


def parser_flags(model: Model) -> list[str]:
    """Flags of `vllm serve` for tool calls and reasoning; none for what the table does not know."""
    table, model_type = _table(), model.shape.model_type
    named: dict[str, str] = next((entry for name, entry in table["models"].items() if name in model.name.lower()), {})
    tool = named.get("tool", table["tool"].get(model_type))
    reasoning = named.get("reasoning", table["reasoning"].get(model_type))
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", tool] if tool else []
    return [*flags, "--reasoning-parser", reasoning] if reasoning else flags
