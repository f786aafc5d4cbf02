"""The counters say what a program did to the chip, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ascend_emulator.pytest_plugin import Npu

if TYPE_CHECKING:
    from ascend_emulator.launcher import Machine


def a_known_program() -> dict[str, Any]:
    import torch
    from ascend_emulator import reset_stats, stats

    torch.npu.set_compile_mode(jit_compile=False)
    host = torch.zeros(256).pin_memory()
    value = host.npu()
    torch.npu.synchronize()
    reset_stats()
    value.copy_(host, non_blocking=True)
    for _ in range(3):
        value = value + value
    value.mul_(2)
    torch.npu.current_stream().synchronize()
    value.cpu()
    return stats()


def test_launches_copies_and_synchronizations_are_counted(npu: Npu) -> None:
    stats = npu.call(a_known_program)
    assert stats["launches"] == {"aclnnAdd": 3, "aclnnInplaceMuls": 1}
    assert stats["launches_total"] == 4
    assert stats["copies"]["host_to_device"] == {"count": 1, "bytes": 1024, "blocking_count": 0}
    assert stats["copies"]["device_to_host"]["count"] == 1
    assert stats["copies"]["device_to_host"]["bytes"] == 1024
    assert stats["synchronizations"]["stream"] >= 1
    assert stats["synchronizations"]["device"] == 0


def memory_of_a_peak() -> dict[str, int]:
    import torch
    from ascend_emulator import reset_stats, stats

    torch.npu.set_device(0)
    reset_stats()
    del_me = torch.empty(256 << 20, dtype=torch.uint8, device="npu")
    del del_me
    torch.npu.empty_cache()
    return stats()["memory"]["chip_0"]


def test_the_peak_outlives_what_caused_it(npu: Npu) -> None:
    memory = npu.call(memory_of_a_peak)
    assert memory["peak_bytes"] >= 256 << 20
    assert memory["used_bytes"] < 256 << 20


PROGRAM = """
import torch, torch_npu
torch.npu.set_compile_mode(jit_compile=False)
(torch.ones(2).npu() + 1).cpu()
"""


@pytest.mark.parametrize("target", ["stats.json", "%p.json", "folder"])
def test_counters_are_written_when_the_process_ends(
    emulated: Callable[..., Machine], tmp_path: Path, target: str
) -> None:
    if target == "folder":
        (tmp_path / "folder").mkdir()
    environment = {**emulated(chip="310P3", count=1).environment, "ASCEND_EMULATOR_STATS": str(tmp_path / target)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    (written,) = tmp_path.rglob("*.json")
    assert json.loads(written.read_text())["launches"]["aclnnAdds"] == 1
    assert target == "stats.json" or written.stem.isdigit()
