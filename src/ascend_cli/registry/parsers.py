"""Which of vLLM's tool-call and reasoning parsers a model needs: vLLM asks its users to know.

The chat template decides where it is at hand, as it shows what the model was taught to write: models of one
model_type think or do not, and write their calls in several forms. Without it, the release's name and model_type do.
A parser of reasoning for a model that does not think would take the whole answer for reasoning, so in doubt: none.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ascend_cli.registry.cards import Model
from ascend_cli.registry.templates import chat_template
from ascend_facts.config_fields import Fields, UnreadableConfig, language_section


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("parsers.toml").read_text(encoding="utf-8"))


def parser_flags(model: Model) -> list[str]:
    """Flags of `vllm serve` for tool calls and reasoning; none for what is not known."""
    model_type = _model_type(model)
    template = chat_template(model.folder)
    if template is None:
        tool, reasoning = by_name(model.name, model_type)
    else:
        tool, reasoning = by_template(template, model_type)
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", tool] if tool else []
    return [*flags, "--reasoning-parser", reasoning] if reasoning else flags


def by_template(template: str, model_type: str) -> tuple[str, str]:
    """(tool parser, reasoning parser) of a chat template; empty for none."""
    table = _table()
    tool = next((rule["parser"] for rule in table["tool_template"] if _matches(rule, template, model_type)), "")
    if not re.search(r"\btools\b", template) and "builtin_tools" not in template:
        tool = ""  # it has no place for tools, so the model is never told of any
    reasoning = next(
        (rule["parser"] for rule in table["reasoning_template"] if _matches(rule, template, model_type)), ""
    )
    return tool, reasoning


def _matches(rule: dict[str, Any], template: str, model_type: str) -> bool:
    """Whether a rule's model_type, its marks (all of them) and its pattern are there, and none of its exclusions."""
    if not model_type.startswith(tuple(rule.get("model_types", ("",)))):
        return False
    if any(mark in template for mark in rule.get("without", ())):
        return False
    return all(mark in template for mark in rule.get("marks", ())) and bool(
        re.search(rule.get("pattern", ""), template)
    )


def by_name(name: str, model_type: str) -> tuple[str, str]:
    """(tool parser, reasoning parser) by the release's name, else by model_type; empty for none."""
    table, lower = _table(), name.lower()
    named: dict[str, str] = next((entry for entry in table["names"] if re.search(entry["pattern"], lower)), {})
    tool = named.get("tool", table["tool"].get(model_type, ""))
    reasoning = named.get("reasoning", table["reasoning"].get(model_type, ""))
    return tool, reasoning


def _model_type(model: Model) -> str:
    try:
        return Fields(language_section(model.config)).text("model_type")
    except UnreadableConfig:
        return ""
