"""Sweeps over server settings, lengths and concurrency; each point is a file, so that a stopped sweep goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ascend_cli.bench.results import MANIFEST, Row, Workload, load, save
from ascend_cli.errors import UsageError

SCHEMA = "ascend.sweep/1"


@dataclass(frozen=True)
class Setting:
    """One combination of `vllm serve` options, such as tensor-parallel-size=2."""

    options: tuple[tuple[str, str], ...] = ()

    @property
    def flags(self) -> list[str]:
        """As `vllm serve` takes them: true switches on, false off, anything else is a value."""
        words = []
        for name, value in self.options:
            if value == "true":
                words.append(f"--{name}")
            elif value == "false":
                words.append(f"--no-{name}")
            else:
                words += [f"--{name}", value]
        return words

    @property
    def label(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.options) or "default"

    @property
    def tensor_parallel_size(self) -> int | None:
        text = dict(self.options).get("tensor-parallel-size", "")
        return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def parse_numbers(text: str, option: str) -> list[int]:
    """Whole numbers from 1,2,4 or 1-4. Raises UsageError."""
    numbers: list[int] = []
    for part in text.split(","):
        matched = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if matched is None or int(matched[1]) < 1 or int(matched[2] or matched[1]) < int(matched[1]):
            raise UsageError(f"{option} {text!r} is not a list of numbers: write 1,2,4 or 1-4")
        numbers.extend(range(int(matched[1]), int(matched[2] or matched[1]) + 1))
    return numbers


def parse_settings(texts: list[str]) -> list[Setting]:
    """Combinations of `name=value,value`. Raises UsageError."""
    axes = []
    for text in texts:
        name, separator, values = text.partition("=")
        name = name.strip().lstrip("-").replace("_", "-")
        if not separator or not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not values:
            raise UsageError(
                f"--set {text!r}: write an option of `vllm serve` and its values, tensor-parallel-size=1,2"
            )
        axes.append([(name, value.strip()) for value in values.split(",")])
    return [Setting(options) for options in itertools.product(*axes)]


@dataclass(frozen=True)
class Grid:
    """The points of a sweep, server settings outermost because each needs a server of its own."""

    settings: list[Setting]
    input_tokens: list[int]
    output_tokens: list[int]
    concurrency: list[int]
    prompts_per_slot: int

    def workloads(self) -> Iterator[Workload]:
        for input_tokens, output_tokens, concurrency in itertools.product(
            self.input_tokens, self.output_tokens, self.concurrency
        ):
            yield Workload(input_tokens, output_tokens, max(self.prompts_per_slot * concurrency, 4), concurrency)

    @property
    def size(self) -> int:
        return len(self.settings) * len(self.input_tokens) * len(self.output_tokens) * len(self.concurrency)


def open_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Make a sweep's folder, or find that it holds this very sweep. Raises UsageError if it holds another one.

    Points of two models or servers in one table would be compared with each other.
    """
    manifest = folder / MANIFEST
    wanted = {"schema": SCHEMA, **identity}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if manifest.exists():
            found = json.loads(manifest.read_text(encoding="utf-8"))
            differing = [name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]]
            if differing:
                raise UsageError(
                    f"{folder} holds another sweep (its {', '.join(differing)} differs): choose another --output"
                )
            return
        if any(folder.glob("*.json")):
            raise UsageError(f"{folder} holds results that say not what they are of: choose another --output")
        partial = folder / f".{MANIFEST}.{os.getpid()}"
        partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        partial.replace(manifest)
    except ValueError as error:
        raise UsageError(f"{manifest} is damaged ({error}): choose another --output") from error
    except OSError as error:
        raise UsageError(f"{folder} cannot be used ({error.strerror}): choose another --output") from error


def point_file(folder: Path, setting: Setting, workload: Workload) -> Path:
    """The file of a point: its label for people, a hash of the whole setting for identity."""
    label = re.sub(r"[^A-Za-z0-9=.-]+", "_", setting.label)[:60]
    exact = json.dumps([setting.options, asdict(workload)])
    key = hashlib.sha256(exact.encode()).hexdigest()[:8]
    name = f"{label}_in{workload.input_tokens}_out{workload.output_tokens}_c{workload.concurrency}_{key}.json"
    return folder / name


def kept(folder: Path, setting: Setting, workload: Workload, say: Callable[[str], None] | None = None) -> Row | None:
    """The point's row if it was measured and can be used; a refused or damaged one is measured again."""
    file = point_file(folder, setting, workload)
    if not file.exists():
        return None
    try:
        (row,) = load(file)
    except (UsageError, ValueError) as error:
        if say:
            say(f"{setting.label} {workload.label}: {file.name} is measured again ({error})")
        return None
    return None if row.refused else row


def sweep_setting(
    folder: Path,
    setting: Setting,
    workloads: list[Workload],
    measure: Callable[[Workload], Row],
    say: Callable[[str], None],
) -> list[Row]:
    """Measure the points of one server setting that are not there yet; a refused point is a row, and said."""
    rows = []
    for workload in workloads:
        row = kept(folder, setting, workload, say)
        if row is not None:
            say(f"{setting.label} {workload.label}: kept from {point_file(folder, setting, workload).name}")
        else:
            row = measure(workload)
            save([row], point_file(folder, setting, workload))
        rows.append(row)
    return rows


def missing(folder: Path, setting: Setting, workloads: list[Workload]) -> list[Workload]:
    return [workload for workload in workloads if kept(folder, setting, workload) is None]
