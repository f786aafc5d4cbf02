"""Device memory: the chip's limit, what backs it, sharing it between processes, and keeping the host out of it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ascend_emulator.pytest_plugin import Npu
from ascend_emulator.worker import Worker

from . import cann

if TYPE_CHECKING:
    from ascend_emulator.launcher import Machine

GIB = 1 << 30


def out_of_memory_text() -> tuple[str, str, float]:
    import torch

    held = [torch.empty(8 * GIB, dtype=torch.uint8, device="npu") for _ in range(5)]
    try:
        torch.empty(8 * GIB, dtype=torch.uint8, device="npu")
    except RuntimeError as error:
        free, total = torch.npu.mem_get_info()
        assert sum(tensor.nbytes for tensor in held) == 40 * GIB
        held.clear()
        torch.npu.empty_cache()
        return type(error).__name__, str(error), (total - free) / GIB
    return "", "", 0.0


@pytest.mark.chips("310P3")
def test_a_full_chip_raises_torch_npus_own_error(npu: Npu) -> None:
    name, text, used_gib = npu.call(out_of_memory_text)
    assert name == "OutOfMemoryError"
    assert "NPU out of memory. Tried to allocate 8.00 GiB (NPU 0; 43.24 GiB total capacity; 40.00 GiB already" in text
    assert used_gib == pytest.approx(40, abs=0.01)


def memory_of_each_chip(environment: dict[str, str]) -> list[int]:
    worker = Worker(environment)
    try:
        return worker.call(set_each_device_and_ask)
    finally:
        worker.close()


def set_each_device_and_ask() -> list[int]:
    import torch

    totals = []
    for device in range(torch.npu.device_count()):
        torch.npu.set_device(device)
        totals.append(torch.npu.mem_get_info(device)[1] >> 20)
    return totals


def test_the_two_chips_of_a_duo_card_differ(emulated: Callable[..., Machine]) -> None:
    environment = emulated(chip="310P3", count=4).environment
    assert memory_of_each_chip(environment) == [44278, 43693, 44278, 43693]
    assert memory_of_each_chip({**environment, "ASCEND_RT_VISIBLE_DEVICES": "3,0"}) == [43693, 44278]


def clear_more_than_the_host_has() -> int:
    """Resident memory of the process, in MiB, after 40 GiB were zeroed on the device."""
    cann.set_device()
    size = 40 * GIB
    memory, stream = cann.malloc(size), cann.stream()
    cann.fill(memory, 0, size, stream)
    cann.synchronize(stream)
    last = ctypes.c_void_p(memory.value + size - 1)
    assert cann.read(last, 1) == b"\0"
    cann.call("aclrtFree", memory)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 >> 20


@pytest.mark.chips("310P3")
def test_zeroed_memory_costs_the_host_nothing(npu: Npu) -> None:
    assert npu.call(clear_more_than_the_host_has) < 2048


def zero_most_of_a_tensor() -> tuple[list[int], int, int]:
    """Its ends, the sum between them, and the MiB by which zeroing it on the device shrank the process."""
    import torch
    import torch_npu  # noqa: F401  puts "npu" among the devices

    def resident_mib() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 >> 20

    values = torch.ones(256 << 20, dtype=torch.uint8, device="npu")
    torch.npu.synchronize()
    before = resident_mib()
    values[3:-5].zero_()
    torch.npu.synchronize()
    shrunk = before - resident_mib()
    ends = torch.cat([values[:4], values[-6:]]).cpu().tolist()
    return ends, int(values[3:-5].count_nonzero().item()), shrunk


@pytest.mark.chips("310P3")
def test_a_large_tensor_zeroed_by_an_operator_is_given_back(npu: Npu) -> None:
    ends, between, shrunk = npu.call(zero_most_of_a_tensor)
    assert ends == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert between == 0
    assert shrunk > 200


def free_and_reuse() -> int:
    cann.set_device()
    for _ in range(20):
        cann.call("aclrtFree", cann.malloc(30 * GIB))
    memory = cann.malloc(4096)
    cann.call("aclrtFree", memory)
    try:
        cann.call("aclrtFree", memory)
    except cann.AclError as error:
        return error.code
    return 0


def test_freed_memory_can_be_had_again_and_not_freed_twice(npu: Npu) -> None:
    assert npu.call(free_and_reuse) == 107000


def copy_beyond_the_end() -> list[str]:
    cann.set_device()
    memory, stream = cann.malloc(4096), cann.stream()
    messages = []
    for address, size in ((memory, 8192), (ctypes.c_void_p(memory.value - 8), 4)):
        try:
            cann.fill(address, 1, size, stream)
        except cann.AclError as error:
            messages.append(f"{error.code} {error}")
    return messages


def test_a_copy_outside_any_allocation_is_refused(npu: Npu) -> None:
    messages = npu.call(copy_beyond_the_end)
    assert len(messages) == 2
    assert all(re.match(r"107000 .*is not allocated device memory", message) for message in messages)


def expandable_segments() -> tuple[float, int, int]:
    import torch

    before = torch.npu.mem_get_info()[0]
    first = torch.ones(3 << 20, device="npu")
    second = torch.full((40 << 20,), 2.0, device="npu")
    total = float(first.cpu().double().sum()) + float(second.cpu().double().sum())
    during = torch.npu.mem_get_info()[0]
    del first, second
    torch.npu.empty_cache()
    return total, before - during, before - torch.npu.mem_get_info()[0]


def test_expandable_segments_grow_and_are_given_back(emulated: Callable[..., Machine]) -> None:
    environment = emulated(chip="910B3", count=1).environment
    worker = Worker({**environment, "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"})
    try:
        total, held, after = worker.call(expandable_segments)
    finally:
        worker.close()
    assert total == (3 << 20) + 2 * (40 << 20)
    assert held >= 172 << 20
    assert after < held


def pinned() -> tuple[bool, bool, list[int]]:
    import torch

    host = torch.arange(1000).pin_memory()
    device = host.to("npu", non_blocking=True)
    back = torch.empty_like(host).pin_memory()
    back.copy_(device, non_blocking=True)
    torch.npu.synchronize()
    return host.is_pinned(), torch.arange(3).is_pinned(), back[-3:].tolist()


def test_pinned_memory_is_told_from_other_memory(npu: Npu) -> None:
    assert npu.call(pinned) == (True, False, [997, 998, 999])


def export_memory() -> tuple[str, int]:
    cann.set_device()
    memory, stream = cann.malloc(1 << 20), cann.stream()
    cann.fill(memory, 9, 1 << 20, stream)
    cann.synchronize(stream)
    key = ctypes.create_string_buffer(65)
    cann.call("aclrtIpcMemGetExportKey", memory, ctypes.c_size_t(1 << 20), key, ctypes.c_size_t(65), ctypes.c_uint64(1))
    return key.value.decode(), memory.value or 0


def import_and_change(key: str) -> bytes:
    cann.set_device()
    memory = cann.create("aclrtIpcMemImportByKey", key.encode(), ctypes.c_uint64(0))
    seen, stream = cann.read(memory, 1), cann.stream()
    cann.fill(memory, 5, 16, stream)
    cann.synchronize(stream)
    cann.call("aclrtIpcMemClose", key.encode())
    return seen


def read_byte(address: int, offset: int) -> bytes:
    return cann.read(ctypes.c_void_p(address + offset), 1)


def test_memory_is_shared_between_processes(emulated: Callable[..., Machine]) -> None:
    environment = emulated(chip="310P3", count=1).environment
    owner, other = Worker(environment), Worker(environment)
    try:
        key, address = owner.call(export_memory)
        assert other.call(import_and_change, key) == b"\x09"
        assert owner.call(read_byte, address, 0) == b"\5"
        assert owner.call(read_byte, address, 16) == b"\x09"
    finally:
        owner.close()
        other.close()


PEEK = """
import ctypes, torch, torch_npu
tensor = torch.arange(8).npu()
assert (tensor + 0).cpu().tolist() == list(range(8))
print("computed", flush=True)
ctypes.string_at(tensor.data_ptr(), 1)
"""


@pytest.mark.parametrize("protected", [True, False])
def test_the_host_cannot_read_protected_device_memory(emulated: Callable[..., Machine], protected: bool) -> None:
    machine = emulated(chip="910B3", count=1, protect_memory=protected)
    # The fault is meant: a sanitizer, where one watches, leaves it to the system.
    left = {name: os.environ.get(name, "") + ":handle_segv=0" for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")}
    environment = {**machine.environment, **left}
    ended = subprocess.run([sys.executable, "-c", PEEK], env=environment, capture_output=True, text=True, check=False)
    assert "computed" in ended.stdout, ended.stderr
    assert ended.returncode == (-11 if protected else 0)


def peers() -> tuple[bool, list[int]]:
    import torch

    first = torch.arange(4, device="npu:0")
    second = first.to("npu:1")
    return torch.npu.can_device_access_peer(0, 1), (second + 0).cpu().tolist()


@pytest.mark.chips("910B3")
def test_chips_copy_to_each_other(npu: Npu) -> None:
    assert npu.call(peers) == (True, [0, 1, 2, 3])


def test_memory_setting_limits_the_chip(emulated: Callable[..., Machine]) -> None:
    environment = emulated(chip="310P3", count=1, memory_mib=512).environment
    assert memory_of_each_chip(environment) == [512]


def test_nothing_is_left_in_shared_memory(emulated: Callable[..., Machine]) -> None:
    before = set(os.listdir("/dev/shm"))
    environment = emulated(chip="310P3", count=1).environment
    owner = Worker(environment)
    owner.call(export_memory)
    owner._process.kill()
    owner.close()
    assert {name for name in set(os.listdir("/dev/shm")) - before if not name.startswith("ascend-emulator-")} == set()


def hold_on_chip(index: int, size_bytes: int) -> int:
    import torch

    held.append(torch.empty(size_bytes, dtype=torch.uint8, device=f"npu:{index}"))
    return os.getpid()


held: list = []  # in the process on the chips: what stays allocated between calls


def test_npu_smi_shows_what_a_process_holds(emulated: Callable[..., Machine], tmp_path: Path) -> None:
    environment = {**emulated(chip="310P3", count=2).environment, "ASCEND_EMULATOR_STATE_DIR": str(tmp_path)}

    def lines() -> list[str]:
        command = [sys.executable, "-m", "ascend_emulator.smi.command", "info"]
        table = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return [" ".join(line.split()) for line in table.splitlines()]

    worker = Worker(environment)
    try:
        pid = worker.call(hold_on_chip, 1, 300 << 20)
        shown = [line for line in lines() if f"| {pid} |" in line]
        assert len(shown) == 1
        assert shown[0].startswith("| 1 1 |")
        assert 300 <= int(shown[0].split("|")[-2]) < 400
    finally:
        worker.close()
    assert not any(f"| {pid} |" in line for line in lines())
