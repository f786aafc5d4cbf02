"""Sweeps over server settings, lengths and concurrency; each point is a file, so that a stopped sweep goes on."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ascend_cli.bench.results import Row, Workload, load, save
from ascend_cli.errors import UsageError


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
        values = dict(self.options)
        return int(values["tensor-parallel-size"]) if "tensor-parallel-size" in values else None


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


def point_file(folder: Path, setting: Setting, workload: Workload) -> Path:
    label = re.sub(r"[^A-Za-z0-9=.-]+", "_", setting.label)
    return folder / f"{label}_in{workload.input_tokens}_out{workload.output_tokens}_c{workload.concurrency}.json"


def sweep_setting(
    folder: Path,
    setting: Setting,
    workloads: list[Workload],
    measure: Callable[[Workload], Row],
    say: Callable[[str], None],
) -> list[Row]:
    """Measure the points of one server setting that have no file yet; a refused point is kept and said."""
    rows = []
    for workload in workloads:
        file = point_file(folder, setting, workload)
        if file.exists():
            rows += load(file)
            say(f"{setting.label} {workload.label}: kept from {file.name}")
            continue
        row = measure(workload)
        save([row], file)
        rows.append(row)
    return rows


def missing(folder: Path, setting: Setting, workloads: list[Workload]) -> list[Workload]:
    return [workload for workload in workloads if not point_file(folder, setting, workload).exists()]
