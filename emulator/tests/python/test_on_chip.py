"""The first things a program does on a chip, through the unmodified torch_npu."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.chips import find
from ascend_emulator.launcher import Machine
from ascend_emulator.pytest_plugin import Npu

ADD = "import torch, torch_npu; print((torch.ones(2).npu() + 1).cpu().tolist())"
MakeMachine = Callable[..., Machine]


def identity() -> dict[str, Any]:
    import torch_npu

    properties = torch_npu.npu.get_device_properties(0)
    return {
        "available": torch_npu.npu.is_available(),
        "count": torch_npu.npu.device_count(),
        "name": torch_npu.npu.get_device_name(0),
        "soc_id": torch_npu.npu.get_soc_version(),
        "total_memory": properties.total_memory,
        "cube_cores": properties.cube_core_num,
        "second_total": torch_npu.npu.mem_get_info(1)[1],
    }


def add_one(values: list[float]) -> list[float]:
    import torch

    return (torch.tensor(values, device="npu") + 1).tolist()


def allocate(gibibytes: int) -> None:
    import torch

    torch.empty(gibibytes << 30, dtype=torch.uint8, device="npu")


def child_process_adds() -> str:
    import subprocess

    return subprocess.run([sys.executable, "-c", ADD], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.chips("310P3", "910B3", "910_9391")
class TestChip:
    def test_it_is_what_its_data_sheet_says(self, npu: Npu) -> None:
        answer = npu.call(identity)
        chip = find(answer["name"])
        assert answer["available"]
        assert answer["soc_id"] == chip.soc_id
        assert answer["cube_cores"] == chip.cube_cores
        if npu.is_emulated:
            assert answer["count"] == chip.chips_per_server
            assert answer["total_memory"] == chip.usable_memory_bytes(0)
            assert answer["second_total"] == chip.usable_memory_bytes(1)

    def test_it_computes(self, npu: Npu) -> None:
        assert npu.call(add_one, [1.0, 2.0]) == [2.0, 3.0]

    def test_it_counts_what_it_did(self, npu: Npu) -> None:
        npu.reset_stats()
        npu.call(add_one, [1.0])
        counters = npu.stats()
        assert counters["launches"].get("aclnnAdds", 0) == 1
        assert counters["copies"]["device_to_host"]["bytes"] >= 4

    def test_memory_ends_where_the_chips_does(self, npu: Npu) -> None:
        with pytest.raises(RuntimeError, match=r"NPU out of memory\. Tried to allocate 200\.00 GiB"):
            npu.call(allocate, 200)

    def test_its_children_see_it_too(self, npu: Npu) -> None:
        assert npu.call(child_process_adds) == "[2.0, 2.0]"


def test_the_duo_runs_out_of_memory_in_the_words_of_published_reports(emulated: MakeMachine) -> None:
    script = "import torch, torch_npu; torch.empty(44 << 30, dtype=torch.uint8, device='npu')"
    done = emulated(chip="310P3").run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "(NPU 0; 43.24 GiB total capacity;" in done.stderr


def test_a_chosen_memory_is_the_chips(emulated: MakeMachine) -> None:
    script = "import torch_npu; print(torch_npu.npu.mem_get_info(0)[1])"
    done = emulated(memory_mib=512).run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 512 << 20


def test_visible_devices_select_and_renumber(emulated: MakeMachine) -> None:
    """The second chip of a Duo card has less memory: it shows which one device 0 is."""
    script = "import torch_npu; print(torch_npu.npu.device_count(), torch_npu.npu.mem_get_info(0)[1] >> 20)"
    machine = emulated(chip="310P3", count=4)
    visible = {"ASCEND_RT_VISIBLE_DEVICES": "1,2"}
    done = machine.run([sys.executable, "-c", script], env=visible, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "43693"]


def test_the_launcher_writes_counters_of_the_whole_tree(emulated: MakeMachine, tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    tree = f"import subprocess, sys; {ADD}; subprocess.run([sys.executable, '-c', {ADD!r}], check=True)"
    launcher = [sys.executable, "-m", "ascend_emulator", "--chip", "910B3", "--stats", str(stats), "--"]
    emulated().run([*launcher, sys.executable, "-c", tree], check=True)
    collected = json.loads(stats.read_text())
    assert len(collected["processes"]) == 2
    assert collected["total"]["launches"]["aclnnAdds"] == 2


def test_the_notice_is_on_stderr_and_once(emulated: MakeMachine) -> None:
    machine = emulated(chip="910B4", count=1)
    machine_environment = {"ASCEND_EMULATOR_ANNOUNCED": ""}
    done = machine.run([sys.executable, "-c", ADD], env=machine_environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[2.0, 2.0]\n"
    assert "ascend-emulator: 1 chip Ascend910B4 " in done.stderr


def test_pyacl_is_there_for_programs_that_import_it(emulated: MakeMachine) -> None:
    script = "import torch_npu, acl; print(acl.get_soc_name(), acl.rt.get_device_count()); from acl.rt import memcpy"
    done = emulated(chip="310P3", count=3).run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "Ascend310P3 (3, 0)", done.stderr
