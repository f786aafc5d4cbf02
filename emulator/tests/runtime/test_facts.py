"""What a program may ask of a chip is answered as that chip answers."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from ascend_emulator.chips import find
from ascend_emulator.host import CANN_VERSION
from ascend_emulator.pytest_plugin import Npu

from . import cann

CHIPS = ("310P3", "310P1", "910B1", "910B3", "910B4", "910_9391")


def facts() -> dict[str, Any]:
    import torch
    import torch_npu

    properties = torch.npu.get_device_properties(0)
    return {
        "name": torch.npu.get_device_name(0),
        "soc": torch_npu.npu.get_soc_version(),
        "memory": properties.total_memory,
        "cube": properties.cube_core_num,
        "vector": properties.vector_core_num,
        "l2": properties.L2_cache_size,
        "bf16": torch.npu.is_bf16_supported(),
        "mem_get_info": torch.npu.mem_get_info()[1],
    }


@pytest.mark.chips(*CHIPS)
def test_properties_are_the_chips(npu: Npu, request: pytest.FixtureRequest) -> None:
    answers = npu.call(facts)
    chip = find(answers["name"])
    assert answers == {
        "name": chip.soc_version,
        "soc": chip.soc_id,
        "memory": chip.usable_memory_bytes(0),
        "cube": chip.cube_cores,
        "vector": chip.vector_cores,
        "l2": chip.l2_mib << 20,
        "bf16": chip.has_bf16,
        "mem_get_info": chip.usable_memory_bytes(0),
    }


def attribute(name: int) -> int:
    value = ctypes.c_int32(-1)
    cann.call("aclGetCannAttribute", name, ctypes.byref(value))
    return value.value


@pytest.mark.chips("310P3", "910B3")
def test_bf16_is_an_attribute_of_the_chip(npu: Npu) -> None:
    has_bf16 = find(npu.call(facts)["name"]).has_bf16
    assert npu.call(attribute, 1) == int(has_bf16)


def uuids() -> list[str]:
    import torch

    return [str(torch.npu.get_device_properties(device).uuid) for device in range(torch.npu.device_count())]


def test_chips_have_different_uuids(npu: Npu) -> None:
    found = npu.call(uuids)
    assert len(set(found)) == len(found) > 1


def version() -> str:
    from torch_npu.npu.utils import get_cann_version

    return get_cann_version("CANN")


def test_the_cann_version_is_the_one_the_libraries_follow(npu: Npu) -> None:
    assert npu.call(version) == CANN_VERSION
