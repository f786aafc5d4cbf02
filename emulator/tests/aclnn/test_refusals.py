"""Every exported aclnn function refuses, in its first phase, what it cannot do, and names itself.

The table of signatures is the list of functions; nothing is known here of any one of them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.pytest_plugin import Npu

SOURCE = Path(__file__).parents[2] / "src" / "aclnn"
NUMBERS = {"double": ctypes.c_double, "float": ctypes.c_float, "int8": ctypes.c_int8, "int32": ctypes.c_int32}
NUMBERS |= {"int64": ctypes.c_int64, "uint64": ctypes.c_uint64, "bool": ctypes.c_bool, "dtype": ctypes.c_int}
PRODUCT_OF = {"310P3": "310P", "910B3": "A2", "910_9391": "A3"}


def operators() -> list[Any]:
    spec = importlib.util.spec_from_file_location("aclnn_signatures", SOURCE / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.parse_table(SOURCE / "signatures.txt")


def call_with_nothing() -> dict[str, tuple[int, str]]:
    """Code and message of each first phase, given null for every pointer and zero for every number."""
    import torch
    import torch_npu  # noqa: F401
    from ascend_emulator import activation

    torch.npu.set_device(0)
    runtime = next(loaded for loaded in activation.loaded() if hasattr(loaded, "aclrtMalloc"))
    library = next(loaded for loaded in activation.loaded() if hasattr(loaded, "aclnnAddGetWorkspaceSize"))
    runtime.aclGetRecentErrMsg.restype = ctypes.c_char_p
    answers = {}
    for operator in operators():
        workspace, executor = ctypes.c_uint64(), ctypes.c_void_p()
        zeros = [NUMBERS.get(each.type, ctypes.c_void_p)() for each in operator.parameters or ()]
        code = getattr(library, f"aclnn{operator.name}GetWorkspaceSize")(
            *zeros, ctypes.byref(workspace), ctypes.byref(executor)
        )
        answers[operator.name] = (code, (runtime.aclGetRecentErrMsg() or b"").decode())
    return answers


@pytest.mark.chips(*PRODUCT_OF)
def test_nothing_is_refused_by_name(npu: Npu, request: pytest.FixtureRequest) -> None:
    chip = next(name for name in PRODUCT_OF if f"[{name}" in request.node.name)
    answers = npu.call(call_with_nothing)
    accepted = sorted(name for name, (code, _) in answers.items() if code == 0)
    assert not accepted, f"success without a single tensor: {accepted}"
    nameless = sorted(name for name, (_, message) in answers.items() if f"aclnn{name}" not in message)
    assert not nameless, f"refused without the operator's name: {nameless}"
    for operator in operators():
        code, message = answers[operator.name]
        if operator.parameters is None:
            assert "does not implement" in message
        elif PRODUCT_OF[chip] not in operator.products and "does not implement" not in message:
            assert code == 361001 and "not supported on" in message, (operator.name, message)
