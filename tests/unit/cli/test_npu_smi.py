"""The layouts of `npu-smi info` that users posted, and the failures."""

from __future__ import annotations

import pytest

from ascend_cli.hardware.host import spec_of
from ascend_cli.hardware.npu_smi import NpuSmiError, failure_code, parse

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
    assert (second.memory_used_mib, second.utilisation_percent, second.hugepages_used) == (37623, 37, 15)
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
    ("output", "code"),
    [
        ("dcmi module initialize failed. ret is -8005", -8005),
        (
            "DrvMngGetConsoleLogLevel failed. (ret=4)\ndcmi model initialized failed, the device is used. ret is -8020",
            -8020,
        ),
        ("[ERROR] aclInit, drvRetCode=87", 87),
        ("npu-smi 25.2.0", None),
    ],
)
def test_failure_codes(output: str, code: int | None) -> None:
    found = failure_code(output)
    if code == -8020:
        assert found in (4, -8020)
    else:
        assert found == code
