"""The layouts of `npu-smi info` that users posted, and the failures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_cli.hardware.host import spec_here, spec_of
from ascend_cli.hardware.npu_smi import Cause, NpuSmiError, failure_of, parse
from ascend_facts.chips import UnknownChip, find

# Syllo/nvtop issue 421 (npu-smi 25.2.0): one Duo card, ids that start at 2, power NA, one memory column
DUO = """
+--------------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                                   Version: 25.2.0                                       |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 2       310P3                 | OK              | NA           45                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1529 / 44280                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 2       310P3                 | OK              | NA           43                15    / 15            |
| 1       1                     | 0000:01:00.0    | 37           37623/ 43693                            |
+===============================+=================+======================================================+
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
+===============================+=================+======================================================+
| 2       1                     | 4711            | VLLM::Worker             | 36000                     |
+===============================+=================+======================================================+
| No running processes found in NPU 0                                                                    |
+===============================+=================+======================================================+
"""

# vllm-project/vllm-ascend issue 8809 (25.5.0): 910B, no device column, HBM column last, no space before a slash
A2 = """
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.0                   Version: 25.5.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.5        34                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          28220/ 32768         |
+===========================+===============+====================================================+
| 1     910B4               | Warning       | 90.1        35                0    / 0             |
| 0                         | 0000:C2:00.0  | 5           0    / 0          3416 / 32768         |
+===========================+===============+====================================================+
"""

# vllm-project/vllm-ascend issue 12980 (26.0.rc2): A3, wide columns, power on the first die only
A3 = """
+------------------------------------------------------------------------------------------------------------------+
| npu-smi 26.0.rc2                            Version: 26.0.rc2                                                    |
+---------------------------+---------------+----------------------------------------------------------------------+
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip  Phy-ID              | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
+===========================+===============+======================================================================+
| 7     Ascend910           | OK            | 172.0                53                      0    / 0                |
| 0     14                  | 0000:81:00.0  | 0                    0    / 0                15503/ 65536            |
+------------------------------------------------------------------------------------------------------------------+
| 7     Ascend910           | OK            | -                    52                      0    / 0                |
| 1     15                  | 0000:83:00.0  | 0                    0    / 0                15242/ 65536            |
+===========================+===============+======================================================================+
+---------------------------+---------------+----------------------------------------------------------------------+
| NPU     Chip              | Process id    | Process name       | Process memory(MB)    | Process id in container |
+===========================+===============+======================================================================+
| 7       0                 | 692318        | python3            | 12417                 | NA                      |
"""


def test_duo_card() -> None:
    reading = parse(DUO)
    first, second = reading.chips
    assert reading.version == "25.2.0"
    assert (first.npu_id, first.chip_id, first.device_id, first.name) == (2, 0, 0, "310P3")
    assert (first.memory_used_mib, first.memory_total_mib, first.power_w, first.temperature_c) == (
        1529,
        44280,
        None,
        45,
    )
    assert (second.memory_used_mib, second.utilization_percent, second.hugepages_used) == (37623, 37, 15)
    assert [process.pid for process in reading.processes_on(second)] == [4711]
    assert reading.processes_on(first) == []
    assert spec_of(first).name == "310P3"


def test_a2() -> None:
    first, second = parse(A2).chips
    assert (first.device_id, first.memory_used_mib, first.memory_total_mib, first.power_w) == (0, 28220, 32768, 88.5)
    assert (second.device_id, second.health) == (1, "Warning")
    assert spec_of(first).name == "910B4"


def test_a3() -> None:
    reading = parse(A3)
    first, second = reading.chips
    assert (first.device_id, second.device_id) == (14, 15)
    assert (first.power_w, second.power_w) == (172.0, None)
    assert (second.memory_used_mib, second.memory_total_mib) == (15242, 65536)
    assert reading.processes_on(first)[0].memory_mib == 12417
    assert spec_of(first).family == "910_93"


def test_something_else_is_no_table() -> None:
    with pytest.raises(NpuSmiError, match="no table"):
        parse("command not found")


@pytest.mark.parametrize(
    ("output", "code", "cause"),
    [
        ("dcmi module initialize failed. ret is -8005", -8005, Cause.INTERNAL),
        ("dcmi model initialized failed, because the device is used. ret is -8020", -8020, Cause.BUSY),
        ("[ERROR] aclInit failed, drvRetCode=87", 87, Cause.BUSY),
        ("npu get board type failed. ret is -9005", -9005, Cause.OTHER),
        ("Segmentation fault", None, Cause.OTHER),
    ],
)
def test_failures(output: str, code: int | None, cause: Cause) -> None:
    """A line of a library that comes first (`ret=4`) hides neither the code nor the line that tells."""
    chatter = ("", "DrvMngGetConsoleLogLevel failed. (ret=4)\n", "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n")
    for first in chatter if code else ("",):
        found = failure_of(first + output, 1)
        assert (found.return_code, found.cause, str(found)) == (code, cause, output)


def posted(name: str) -> str:
    return (Path(__file__).with_name("npu_smi") / f"{name}.txt").read_bytes().decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("name", "chips", "memory_mib", "spec"),
    [
        ("21.0.2-table", [(0, 0, 0, "910B", "OK")], 32768, None),
        ("23.0.0-310B4-alarm", [(0, 0, 0, "310B4", "Alarm")], 15609, None),
        ("23.0.0-310P3-npu24", [(24, 0, 0, "310P3", "OK")], 21527, ("310P3", 21527)),
        ("23.0.2-910-gen1-hbm0", [(0, 0, 0, "910A", "OK"), (1, 0, 1, "910A", "OK")], 32768, None),
        (
            "23.0.2.1-910B2C-trailing-space",
            [(0, 0, 0, "910B2C", "OK"), (1, 0, 1, "910B2C", "OK")],
            65536,
            ("910B2", 62423),
        ),
        ("23.0.6-910B4-modelarts", [(1, 0, 1, "910B4", "OK")], 32768, ("910B4", 30208)),
        ("25.2.0-910B4-1", [(0, 0, 0, "910B4-1", "OK"), (1, 0, 1, "910B4-1", "OK")], 65536, ("910B4", 60416)),
        ("25.5-910B3-process-no-name", [(2, 0, 2, "910B3", "OK"), (7, 0, 7, "910B3", "OK")], 65536, ("910B3", 62423)),
        ("25.5-A3-many-processes", [(0, 0, 0, "910", "OK"), (0, 1, 1, "910", "OK")], 65536, ("910_9391", 62740)),
        ("25.5.1-Pro-x2", [(4, 0, 0, "310P3", "OK"), (5, 0, 1, "310P3", "OK")], 21525, ("310P3", 21525)),
        ("25.5.1-hami-chatter-first", [(4, 0, 0, "310P3", "OK")], 8192, ("310P3", 8192)),
        ("25.6.rc1-Ascend910-new-table", [(0, 0, 0, "910", "OK")], 65536, ("910_9391", 62740)),
        ("25.7.rc1-950PR-alarm", [(0, 0, 0, "950PR", "Alarm"), (3, 0, 3, "950PR", "OK")], 131072, ("950PR", 125952)),
        ("310P3-no-pcie-NA-memory", [(0, 0, 0, "310P3", "OK")], 21527, ("310P3", 21527)),
    ],
)
def test_posted_tables(name: str, chips: list[Any], memory_mib: int, spec: tuple[str, int] | None) -> None:
    reading = parse(posted(name))
    assert [(c.npu_id, c.chip_id, c.device_id, c.name, c.health) for c in reading.chips] == chips
    assert {chip.memory_total_mib for chip in reading.chips} == {memory_mib}
    assert reading.odd_rows == ()
    if spec is None:
        with pytest.raises(UnknownChip):
            spec_here(reading.chips)
    else:
        here = spec_here(reading.chips)
        assert (here.name, here.usable_memory_mib[0]) == spec


def test_a_duo_card_keeps_the_figures_of_the_table() -> None:
    assert spec_here(parse(posted("25.5.1-Duo-x2-all-dash")).chips) == find("310P3")


def test_a_chip_that_fell_off_is_an_odd_row_and_the_others_are_read() -> None:
    reading = parse(posted("910B-reset-second-row-missing"))
    assert [chip.chip_id for chip in reading.chips] == [1]
    assert reading.odd_rows == ("NPU 2 310P3 UNKNOWN has no second row",)


def test_memory_that_is_not_shown_is_not_zero() -> None:
    assert parse(posted("310P3-no-pcie-NA-memory")).chips[0].memory_used_mib is None


def test_processes_of_every_layout() -> None:
    assert [one.pid for one in parse(posted("25.7.rc1-950PR-alarm")).processes] == [123]
    assert [(one.chip_id, one.name) for one in parse(posted("25.5-A3-many-processes")).processes] == [
        (0, ""),
        (0, ""),
        (1, ""),
    ]
    assert parse(posted("made-cut-utf8-process")).processes[0].pid == 124528


TABLES = [posted(file.stem) for file in sorted(Path(__file__).with_name("npu_smi").glob("*.txt"))]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_table_however_broken_is_a_traceback(data: st.DataObject) -> None:
    """Lines cut, dropped, doubled and exchanged, characters changed: chips, odd rows or NpuSmiError, nothing else."""
    lines = data.draw(st.sampled_from(TABLES)).splitlines()
    for _ in range(data.draw(st.integers(0, 4))):
        if not lines:
            break
        where = data.draw(st.integers(0, len(lines) - 1))
        line = lines[where]
        match data.draw(st.sampled_from(("cut", "drop", "double", "swap", "change"))):
            case "cut":
                lines[where] = line[: data.draw(st.integers(0, len(line)))]
            case "drop":
                del lines[where]
            case "double":
                lines.insert(where, line)
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[where], lines[other] = lines[other], line
            case _ if line:
                at = data.draw(st.integers(0, len(line) - 1))
                lines[where] = line[:at] + data.draw(st.text(max_size=3)) + line[at + 1 :]
    try:
        reading = parse("\n".join(lines))
    except NpuSmiError:
        return
    for chip in reading.chips:
        with suppress(UnknownChip):
            spec_here([chip])
