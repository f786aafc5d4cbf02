"""Which tool wrote a file, told by what stands in it and never by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascend_cli.bench.foreign import aisbench, evalscope, guidellm, vllm
from ascend_cli.bench.foreign.row import Spoiled
from ascend_cli.bench.results import Row
from ascend_cli.errors import UsageError

LARGEST_FILE_BYTES = 1 << 30  # a detailed result of guidellm holds every request's text


def rows_of(path: Path) -> list[Row] | None:
    """Rows of a file or folder that another tool wrote; None for any other. Raises UsageError for a spoiled one."""
    if path.is_dir():
        return [row for folder in evalscope.folders(path) for row in rows_of(folder / evalscope.SUMMARY) or []] or None
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise UsageError(f"{path} is larger than any result: give a summary instead")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return None
    try:
        return _rows(text, path)
    except Spoiled as error:
        raise UsageError(
            f"{path} is a result of another tool that cannot be read ({error}): give the whole file that it wrote"
        ) from error


def _rows(text: str, path: Path) -> list[Row] | None:
    documents = _documents(text, path)
    if documents is None:
        return vllm.rows_of_text(text, path) or aisbench.rows_of_text(text, path)
    for tool in (vllm, guidellm, evalscope, aisbench):
        if all(tool.is_mine(document) for document in documents) and documents:
            return [row for document in documents for row in tool.rows_of(document, path)]
    return None


def _documents(text: str, path: Path) -> list[Any] | None:
    """The JSON (or, by its suffix, YAML) documents of a file: one, a list of them, or one a line; None for text."""
    try:
        if path.suffix.lower() in (".yaml", ".yml"):
            import yaml

            found = yaml.safe_load(text)
        else:
            found = json.loads(text)
    except RecursionError:
        return None
    except ValueError:
        return _lines(text)
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            return None
        raise
    return found if isinstance(found, list) else [found]


def _lines(text: str) -> list[Any] | None:
    """A document a line, as `vllm bench serve --append-result` writes; None where a line is something else."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [json.loads(line) for line in lines] if lines else None
    except (ValueError, RecursionError):
        return None
