"""ATB's C functions refuse tensors that do not exist, or lie outside device memory, before anything reads them."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from aclnn.direct import POINTER, SIZE, Chip, Tensor
from ascend_emulator.pytest_plugin import Npu

INVALID_TENSOR_ADDR = 14
CONTEXT = POINTER(0x10)  # never reached: tensors are looked at first


def cache_load(tensors: list[POINTER], **_: Any) -> int:
    """AtbPagedCacheLoad: caches, block table, lengths, outputs, starts."""
    workspace, operation = ctypes.c_uint64(), POINTER()
    function = library().AtbPagedCacheLoadGetWorkspaceSize
    flags = ctypes.c_int8(1), ctypes.c_bool(False), ctypes.c_bool(True)
    return int(function(*tensors, *flags, ctypes.byref(workspace), ctypes.byref(operation), CONTEXT))


def library() -> Any:
    from ascend_emulator import activation

    activation.load_libraries()
    return next(each for each in activation.loaded() if hasattr(each, "AtbPagedCacheLoadGetWorkspaceSize"))


def tensors_of_a_load(chip: Chip) -> list[POINTER]:
    cache = torch.zeros(2, 4, 1, 16, dtype=torch.float16)
    rows = torch.zeros(4, 1, 16, dtype=torch.float16)
    table, lengths = torch.zeros(1, 1, dtype=torch.int32), torch.full((1,), 4, dtype=torch.int32)
    values = cache, cache.clone(), table, lengths, rows, rows.clone(), torch.zeros(1, dtype=torch.int32)
    return [chip.descriptor(Tensor(value)) for value in values]


def with_wild_tensors() -> set[int]:
    chip = Chip.get()
    tensors = tensors_of_a_load(chip)
    destroyed = chip.descriptor(Tensor(torch.zeros(4)))
    chip.descriptors.pop()
    assert chip.runtime.aclDestroyTensor(destroyed) == 0
    answers = set()
    for position in range(len(tensors)):
        for wild in (POINTER(0x1234), POINTER((1 << 47) + 8), destroyed, chip.argument("IntArray", [1])):
            answers.add(cache_load([*tensors[:position], wild, *tensors[position + 1 :]]))
    chip.clear()
    return answers


def with_tensors_elsewhere() -> set[int]:
    """Views that end behind their storage, and storages that are not device memory."""
    chip = Chip.get()
    tensors = tensors_of_a_load(chip)
    answers = set()
    cache = torch.zeros(2, 4, 1, 16, dtype=torch.float16)
    beyond = chip.descriptor(Tensor(cache, offset=1))
    longer = chip.descriptor(Tensor(cache.clone(), sizes=[2**20, 4, 1, 16], strides=[64, 16, 16, 1]))
    host = (ctypes.c_int16 * 128)()
    sizes = (ctypes.c_int64 * 4)(2, 4, 1, 16)
    strides = (ctypes.c_int64 * 4)(64, 16, 16, 1)
    arguments = sizes, SIZE(4), ctypes.c_int(1), strides, ctypes.c_int64(0), ctypes.c_int(2), sizes, SIZE(4)
    on_host = POINTER(chip.runtime.aclCreateTensor(*arguments, POINTER(ctypes.addressof(host))))
    for first in (beyond, longer, on_host):
        answers.add(cache_load([first, *tensors[1:]]))
    chip.runtime.aclDestroyTensor(on_host)
    chip.clear()
    return answers


@pytest.mark.chips("910B3")
def test_tensors_that_do_not_exist(npu: Npu) -> None:
    assert npu.call(with_wild_tensors) == {INVALID_TENSOR_ADDR}


@pytest.mark.chips("910B3")
def test_tensors_outside_device_memory(npu: Npu) -> None:
    assert npu.call(with_tensors_elsewhere) == {INVALID_TENSOR_ADDR}
