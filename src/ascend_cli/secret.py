"""Reading an API key from its file, one way for every command; the key itself is printed nowhere."""

from __future__ import annotations

from pathlib import Path

from ascend_cli.errors import UsageError


def read_key(file: Path, option: str = "--api-key-file") -> str:
    """The key in a file. Raises UsageError for one that is missing, unreadable, empty or no single word of text."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"{option} {file} cannot be read ({error.strerror}): give a readable file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {file} is not text: put a key in it, `openssl rand -hex 32` makes one") from error
    if not text:
        raise UsageError(f"{option} {file} is empty: put a key in it, `openssl rand -hex 32` makes one")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(f"{option} {file} holds more than one word of plain ASCII: a key is one word")
    return text
