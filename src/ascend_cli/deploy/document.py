"""YAML documents from plain data, by a serializer: no value, whatever it holds, can become structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are read, no anchors, lists indented under their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


# What every reader takes for a text without quotes. Readers differ in the rest: 1e3, 0o17, 1_000, 2024-01-01 and 1:30
# are texts to one and numbers to another.
PLAIN = re.compile(r"(?:--)?[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)
WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    is_plain = PLAIN.fullmatch(value) is not None and value.lower() not in WORDS
    is_printable = all(line.isprintable() for line in value.split("\n"))
    style = None if is_plain else '"' if not is_printable else "|" if "\n" in value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(documents: Sequence[Mapping[str, Any]], comments: Sequence[str]) -> str:
    """Documents in one file, under comments. A comment is one line, whatever it holds."""
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    bodies = [
        yaml.dump(dict(one), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=4096)
        for one in documents
    ]
    return head + "---\n".join(bodies)


def without_interpolation(value: Any) -> Any:
    """A tree for Compose, which reads $NAME in every text: each dollar doubled stands for itself."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: without_interpolation(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_interpolation(item) for item in value]
    return value
