"""The flags of `vllm serve` that decide something here, read as vLLM reads them; all others pass through unread."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ascend_cli.errors import UsageError

SIZE_SUFFIXES = {"k": 1_000, "m": 1_000_000, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}  # vLLM's
VALUES = (
    ("--host",),
    ("--port",),
    ("--uds",),
    ("--hf-token",),
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
    ("--data-parallel-size-local", "-dpl"),
    ("--gpu-memory-utilization",),
    ("--kv-cache-memory-bytes",),
    ("--num-gpu-blocks-override",),
    ("--max-model-len",),
    ("--max-num-batched-tokens",),
    ("--max-num-seqs",),
    ("--tool-call-parser",),
    ("--reasoning-parser",),
)
LISTS = ("--api-key", "--served-model-name")  # take any number of words
SECRETS = {"--api-key": "VLLM_API_KEY", "--hf-token": "HF_TOKEN"}  # and the variable that carries each unseen
LOOPBACK = ("localhost", "::1")


class _Reader(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"the flags after -- cannot be read: {message}")


def _reader() -> _Reader:
    reader = _Reader(add_help=False, allow_abbrev=False, argument_default=None)
    for names in VALUES:
        reader.add_argument(*names)
    for name in LISTS:
        reader.add_argument(name, nargs="*")
    reader.add_argument("--config")
    return reader


def spelled(flags: Sequence[str]) -> list[str]:
    """Flags in one spelling: vLLM takes underscores for dashes in a flag's name, and `-tp=2`."""
    words = []
    for word in flags:
        name, separator, value = word.partition("=")
        if re.fullmatch(r"--[A-Za-z][\w-]*", name):
            word = name.replace("_", "-") + separator + value
        elif separator and re.fullmatch(r"-[a-z]{2,}", name):
            words.append(name)
            word = value
        words.append(word)
    return words


@dataclass(frozen=True)
class ServeFlags:
    """What a user's flags, and the file that --config names, settle."""

    values: dict[str, Any]

    @classmethod
    def read(cls, flags: Sequence[str]) -> ServeFlags:
        """Raises UsageError for a flag without its value and for a --config that cannot be read."""
        parsed = vars(_reader().parse_known_args(spelled(flags))[0])
        file = parsed.pop("config")
        values = {name: value for name, value in parsed.items() if value is not None}
        return cls((_config_values(file) if file else {}) | values)  # the command line wins over the file

    def get(self, name: str) -> str | None:
        """The value of a flag (`--tensor-parallel-size`) as text, None if it is not given."""
        value = self.values.get(name.lstrip("-").replace("-", "_"))
        if isinstance(value, list):
            return " ".join(map(str, value))
        return None if value is None else str(value)

    def has(self, name: str) -> bool:
        return self.get(name) is not None

    def count(self, name: str) -> int | None:
        """A whole number of at least one. Raises UsageError for anything else."""
        text = self.get(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UsageError(f"{name} {text!r} is not a whole number of at least 1")
        return int(text)

    def share(self, name: str) -> float | None:
        """A share above 0, up to 1. Raises UsageError for anything else."""
        text = self.get(name)
        if text is None:
            return None
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise UsageError(f"{name} {text!r} is not a share: give a number above 0, up to 1")
        return share

    def tokens(self, name: str) -> int | None:
        """A number of tokens, with vLLM's suffixes (32k, 32K); None if not given, or left to vLLM (-1, auto)."""
        text = self.get(name)
        if text is None or text in ("-1", "auto"):
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
        if found is None or float(found[1]) <= 0:
            raise UsageError(f"{name} {text!r} is not a number of tokens: write 32768, 32k or auto")
        return int(float(found[1]) * SIZE_SUFFIXES.get(found[2], 1))

    @property
    def port(self) -> int:
        text = self.get("--port") or "8000"
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            raise UsageError(f"--port {text!r} is not a port: give a number from 1 to 65535")
        return int(text)

    @property
    def is_open(self) -> bool:
        """Whether the server will listen beyond this machine."""
        host = self.get("--host")
        return host is not None and not self.has("--uds") and host not in LOOPBACK and not host.startswith("127.")


def _config_values(file: str) -> dict[str, Any]:
    """What vLLM's --config file sets, by the names of flags. Raises UsageError if it cannot be read."""
    import yaml

    try:
        document = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = " ".join(str(error).split())
        raise UsageError(f"--config {file} cannot be read ({first}): give a YAML file of flags") from error
    if not isinstance(document, dict):
        raise UsageError(f"--config {file} holds no flags: write one `name: value` a line")
    known = {names[0].lstrip("-").replace("-", "_") for names in (*VALUES, *((name,) for name in LISTS))}
    named = {str(key).replace("-", "_"): value for key, value in document.items()}
    return {name: value for name, value in named.items() if name in known and value is not None}


def without_secrets(flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The flags less every secret, and the environment that carries the secrets instead: argv shows in `ps`.

    Raises UsageError for an empty secret and for several keys, for which vLLM has no variable.
    """
    kept: list[str] = []
    environment: dict[str, str] = {}
    words = list(flags)
    while words:
        word = words.pop(0)
        name, separator, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in SECRETS:
            kept.append(word)
            continue
        given = [value] if separator else []
        while words and not separator and not words[0].startswith("-"):
            given.append(words.pop(0))
        environment[SECRETS[name]] = _one_secret(name, given)
    return kept, environment


def _one_secret(name: str, given: list[str]) -> str:
    filled = [value for value in given if value.strip()]
    if len(filled) != len(given) or not given:
        raise UsageError(f"{name} is empty: fill it in, or leave it out")
    if len(given) > 1:
        raise UsageError(
            f"{name} names several: put them as a list `{name.strip('-')}` into a file for -- --config FILE"
        )
    return given[0]
