"""Descriptors that were destroyed, never created or are of another kind are answered with 161002, not followed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from ascend_emulator.pytest_plugin import Npu

from .direct import POINTER, SIZE, Chip, Tensor, signatures

PARAM_NULL, PARAM_INVALID = 161001, 161002
WILD = (0x1234, (1 << 47) + 8, (1 << 64) - 8)
POINTERS = {"Tensor", "TensorList", "Scalar", "ScalarList", "IntArray", "FloatArray", "BoolArray"}


def wild_handles(chip: Chip) -> Iterator[int]:
    """Destroyed, never created, beside a descriptor, and one of every other kind."""
    tensor = chip.descriptor(Tensor(torch.zeros(4)))
    assert tensor.value is not None
    destroyed = chip.descriptor(Tensor(torch.zeros(4)))
    chip.descriptors.pop()
    assert chip.runtime.aclDestroyTensor(destroyed) == 0
    yield from (*WILD, int(destroyed.value or 0), tensor.value + 8, tensor.value - 1)
    yield int(chip.argument("IntArray", [1, 2]).value)


def phase_1(name: str, position: int, handle: int) -> tuple[int, str]:
    """The answer to a call whose argument at `position` is `handle`, and its other ones null or 0."""
    chip = Chip.get()
    arguments: list[Any] = []
    for index, parameter in enumerate(signatures()[name].parameters):
        value = (
            POINTER() if parameter.type in (*POINTERS, "string", "DynamicTensor") else chip.argument(parameter.type, 0)
        )
        arguments.append(POINTER(handle) if index == position else value)
    workspace, executor = ctypes.c_uint64(), POINTER()
    function = getattr(chip.operators, f"aclnn{name}GetWorkspaceSize")
    code = function(*arguments, ctypes.byref(workspace), ctypes.byref(executor))
    return code, chip._message()


def every_operator_with_every_wild_handle() -> tuple[int, dict[str, int]]:
    chip, calls, others = Chip.get(), 0, {}
    handles = list(wild_handles(chip))
    for name, operator in signatures().items():
        for position, parameter in enumerate(operator.parameters or ()):
            if parameter.type not in (*POINTERS, "DynamicTensor"):
                continue
            for handle in handles:
                if parameter.type == "IntArray" and handle == handles[-1]:
                    continue  # what it is
                code, message = phase_1(name, position, handle)
                calls += 1
                if code != PARAM_INVALID and "does not implement" not in message:
                    others[f"aclnn{name} {parameter.name} {handle:#x}: {message}"] = code
    chip.clear()
    return calls, others


def test_no_operator_follows_what_is_no_descriptor(npu: Npu) -> None:
    calls, others = npu.call(every_operator_with_every_wild_handle)
    print(f"{calls} calls")
    assert calls > 10_000
    assert others == {}


def lists_and_results() -> dict[str, int]:
    """Of a list whose element was destroyed since, of null results and of executors that are none."""
    chip = Chip.get()
    answers = {}
    tensor = chip.descriptor(Tensor(torch.zeros(4)))
    out = chip.descriptor(Tensor(torch.zeros(4)))
    pair = (POINTER * 1)(tensor)
    handles = chip.runtime.aclCreateTensorList(pair, SIZE(1))
    chip.descriptors.pop(0)
    assert chip.runtime.aclDestroyTensor(tensor) == 0
    workspace, executor = ctypes.c_uint64(), POINTER()
    size_and_executor = ctypes.byref(workspace), ctypes.byref(executor)
    cat = chip.operators.aclnnCatGetWorkspaceSize
    answers["element"] = cat(POINTER(handles), ctypes.c_int64(0), out, *size_and_executor)
    chip.runtime.aclDestroyTensorList(POINTER(handles))
    abs_ = chip.operators.aclnnAbsGetWorkspaceSize
    answers["no size"] = abs_(out, out, POINTER(), size_and_executor[1])
    answers["no executor"] = abs_(out, out, size_and_executor[0], POINTER())
    assert abs_(out, out, *size_and_executor) == 0
    launch = chip.operators.aclnnAbs
    arguments = POINTER(), ctypes.c_uint64(0)
    for wild in WILD:
        answers[f"executor {wild:#x}"] = launch(*arguments, POINTER(wild), chip.stream)
    answers["first"] = launch(*arguments, executor, chip.stream)
    answers["second"] = launch(*arguments, executor, chip.stream)
    chip.clear()
    return answers


def test_lists_results_and_executors(npu: Npu) -> None:
    answers = npu.call(lists_and_results)
    assert answers.pop("element") == PARAM_INVALID
    assert answers.pop("first") == 0
    assert set(answers.values()) == {PARAM_NULL}, answers
