"""Every general operator gives on a chip what the same expression gives on the CPU, over random shapes and layouts."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu

from . import elementwise_cases, harness, tensor_cases

CASES = [
    pytest.param(module.__name__, name, dtype, id=f"{name}-{dtype}")
    for module in (elementwise_cases, tensor_cases)
    for name, case in module.CASES.items()
    for dtype in case.dtypes
]


@pytest.mark.parametrize(("module", "name", "dtype"), CASES)
def test_equals_the_cpu(npu: Npu, module: str, name: str, dtype: str) -> None:
    npu.call(harness.compare, module, name, dtype)
