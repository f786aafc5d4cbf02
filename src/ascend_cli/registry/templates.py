"""A checkpoint's chat template: what it was taught to write when it thinks and when it calls tools."""

from __future__ import annotations

import json
from pathlib import Path

LARGEST_TEMPLATE_BYTES = 64 << 20  # tokenizer_config.json of large vocabularies takes some of it


def chat_template(folder: Path | None) -> str | None:
    """The text of every template of a checkpoint; None where the folder holds none, or none that can be read."""
    if folder is None:
        return None
    plain = _text(folder / "chat_template.jinja")
    if plain is not None:
        return plain
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _in_document(_text(folder / name))
        if found is not None:
            return found
    return None


def _in_document(text: str | None) -> str | None:
    """The template in a JSON file: a text, or a list of named ones, of which tools may have one of their own."""
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    template = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(template, list):
        parts = [entry.get("template") for entry in template if isinstance(entry, dict)]
        template = "\n".join(part for part in parts if isinstance(part, str))
    return template if isinstance(template, str) and template.strip() else None


def _text(file: Path) -> str | None:
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_TEMPLATE_BYTES:
            return None
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
