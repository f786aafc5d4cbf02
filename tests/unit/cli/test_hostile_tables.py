"""Tables of npu-smi cut anywhere and with odd rows: every command answers, nothing is made of what is not there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_cli.hardware import host as host_module
from ascend_cli.hardware.npu_smi import NpuSmiError, Reading, parse
from ascend_cli.top.export import exposition

from .conftest import Ascend

TABLES = sorted((Path(__file__).parent / "npu_smi").glob("*.txt"))
NAMES = [table.stem for table in TABLES]
COMMANDS: tuple[list[str], ...] = (
    ["doctor"],
    ["plan", "qwen3-8b"],
    ["deploy", "qwen3-8b"],
    ["deploy", "qwen3-8b", "--target", "k8s"],
    ["serve", "qwen3-8b", "--dry-run"],
    ["top", "--once", "--url", "http://127.0.0.1:8399"],
    ["models"],
    ["doctor", "--json"],
)
ODD_ROWS = (
    "| 0     910B4               | OK            | 88.5        34                0    / 0             |",
    "| 0                         | 0000:C1:00.0  | 0           0    / 0          28220/ 32768         |",
    "| 99999999999999999999 x    | OK            | nan inf                       -1   / -1            |",
    "| ٣     910B4               | OK            | 88.5        34                0    / 0             |",
    "| 0  |",
    "||||",
    "|",
    "| NA    NA                  | NA            | NA          NA                NA   / NA            |",
    "| -1    910B4 | OK | 1 2 0 / 0 |",
    "| 0     910B4\x00\x1b[31m   | OK            | 1 1 0 / 0 |",
    "| No running processes found in NPU 0 |",
    "| 0       0                 | 1e9           | python3                  | -3                        |",
    "+====+",
    "",
    "x" * 5000,
    "| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|",
    "| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |",
)


def read(text: str) -> Reading | None:
    try:
        return parse(text)
    except NpuSmiError:
        return None


def sound(reading: Reading) -> None:
    """Figures that a chip can have, each chip once, and no sum of them that fails."""
    for chip in reading.chips:
        assert chip.npu_id >= 0 and chip.chip_id >= 0 and chip.device_id >= 0
        for figure in (chip.memory_used_mib, chip.memory_total_mib, chip.hugepages_used):
            assert figure is None or figure >= 0
        assert chip.memory_total_mib is None or chip.memory_total_mib > 0
    exposition(reading)


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_a_table_cut_anywhere_tells_no_chip_that_it_does_not_show(table: Path) -> None:
    text = table.read_text(encoding="utf-8", errors="replace")
    whole = read(text)
    known = {(chip.npu_id, chip.chip_id): chip for chip in whole.chips} if whole else {}
    for end in range(0, len(text), 23):
        found = read(text[:end])
        if found is None:
            continue
        sound(found)
        for chip in found.chips:
            assert chip == known[chip.npu_id, chip.chip_id], f"cut at {end}"


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_every_line_lost_or_doubled_is_at_most_an_odd_row(table: Path) -> None:
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    for number in range(len(lines)):
        for changed in (lines[:number] + lines[number + 1 :], [*lines[:number], lines[number], *lines[number:]]):
            if (found := read("\n".join(changed))) is not None:
                sound(found)


@given(table=st.sampled_from(TABLES), row=st.sampled_from(ODD_ROWS) | st.text(max_size=60), place=st.integers(0, 40))
@settings(max_examples=150)
def test_an_odd_row_anywhere_is_read_around(table: Path, row: str, place: int) -> None:
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    lines.insert(place % (len(lines) + 1), row)
    if (found := read("\n".join(lines))) is not None:
        sound(found)


@pytest.fixture
def judge(ascend: Ascend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str], str], None]:
    script, table = tmp_path / "npu-smi", tmp_path / "table"
    script.write_text(f"#!/bin/sh\ncat {table}\n")
    script.chmod(0o755)
    monkeypatch.setattr(host_module, "beside_python", lambda name: script if name == "npu-smi" else None)
    monkeypatch.setattr("ascend_cli.serving.decide.vllm_command", lambda: "/venv/bin/vllm")
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def check(text: str, command: list[str], case: str) -> None:
        table.write_text(text, encoding="utf-8", errors="replace")
        answer = ascend(*command)
        told = f"{case}: {command}: {answer.code} {answer.err[:300]}"
        assert answer.code in (0, 1, 2) and "Traceback" not in answer.err, told
        assert answer.code != 2 or answer.error_line, told

    return check


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_every_command_answers_a_cut_table(table: Path, judge: Callable[[str, list[str], str], None]) -> None:
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    start = NAMES.index(table.stem)
    commands = itertools.islice(itertools.cycle(COMMANDS), start, None)
    for end, command in zip(range(start % 3, len(lines) + 1, 3), commands, strict=False):
        judge("\n".join(lines[:end]) + "\n", command, f"{table.stem} cut after {end} lines")


@pytest.mark.parametrize("row", range(len(ODD_ROWS)))
def test_every_command_answers_an_odd_row(row: int, judge: Callable[[str, list[str], str], None]) -> None:
    table = TABLES[row % len(TABLES)]
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, command in enumerate(COMMANDS[row % 2 :: 2]):
        place = (row + 3 * number) % (len(lines) + 1)
        judge("\n".join([*lines[:place], ODD_ROWS[row], *lines[place:]]), command, f"{table.stem} row {row}")
