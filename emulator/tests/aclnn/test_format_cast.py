"""aclnnNpuFormatCast: what a cast tensor has to look like, and what is refused; source: ops-math npu_format_cast."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .direct import FRACTAL_NZ, ND, POINTER, Chip, Tensor

NCHW, NC1HWC0 = 0, 3
PARAM_NULL, PARAM_INVALID, RUNTIME_ERROR = 161001, 161002, 361001
FLOAT, FLOAT16, INT8, AS_THE_SOURCE = 0, 1, 2, -1
FUNCTION = "aclnnNpuFormatCastCalculateSizeAndFormat"
Answer = tuple[int, list[int], int]


def target(
    sizes: Sequence[int],
    dtype: torch.dtype,
    format: int,
    to: int,
    additional: int,
    storage: Sequence[int] | None = None,
    **changes: int,
) -> Answer:
    """Code, storage sizes and format that the tensor to cast to must have; `changes` replace pointers."""
    chip = Chip.get()
    value = torch.zeros(torch.Size(storage or sizes).numel(), dtype=dtype).reshape(sizes if storage is None else -1)
    strides = torch.empty(sizes, device="meta").stride()
    source = chip.descriptor(Tensor(value, sizes, strides, format=format, storage_sizes=storage))
    shape, size, actual = ctypes.POINTER(ctypes.c_int64)(), ctypes.c_uint64(), ctypes.c_int()
    pointers: dict[str, Any] = {"source": source, "shape": ctypes.byref(shape), "size": ctypes.byref(size)}
    pointers["actual"] = ctypes.byref(actual)
    pointers |= {name: POINTER(address) for name, address in changes.items()}
    function = getattr(chip.operators, FUNCTION)
    code = function(pointers["source"], to, additional, pointers["shape"], pointers["size"], pointers["actual"])
    chip.clear()
    return int(code), shape[: size.value], actual.value


@pytest.mark.chips("910B3", "910_9391", "950PR")
@pytest.mark.parametrize(
    ("sizes", "dtype", "storage"),
    [
        ((48, 40), torch.float16, [3, 3, 16, 16]),
        ((48, 40), torch.int8, [2, 3, 16, 32]),
        ((2, 17, 65), torch.float16, [2, 5, 2, 16, 16]),
    ],
)
def test_what_a_cast_tensor_looks_like(npu: Npu, sizes: list[int], dtype: torch.dtype, storage: list[int]) -> None:
    for additional in (AS_THE_SOURCE, FLOAT16 if dtype == torch.float16 else INT8):
        assert npu.call(target, sizes, dtype, ND, FRACTAL_NZ, additional) == (0, storage, FRACTAL_NZ)
    back = npu.call(target, sizes, dtype, FRACTAL_NZ, ND, AS_THE_SOURCE, storage)
    assert back == (0, list(sizes), ND)


@pytest.mark.chips("910B3")
def test_the_width_of_a_fractal_is_that_of_the_additional_type(npu: Npu) -> None:
    assert npu.call(target, (16, 40), torch.float32, ND, FRACTAL_NZ, FLOAT16) == (0, [3, 1, 16, 16], FRACTAL_NZ)
    assert npu.call(target, (16, 40), torch.float32, ND, FRACTAL_NZ, FLOAT) == (0, [5, 1, 16, 8], FRACTAL_NZ)


@pytest.mark.chips("910B3")
def test_what_it_does_not_cast_is_left_to_aclop(npu: Npu) -> None:
    """361001 is what torch_npu goes on with as before CANN 9.1.0."""
    assert npu.call(target, (2, 3, 16, 16), torch.float32, NCHW, FRACTAL_NZ, FLOAT16)[0] == RUNTIME_ERROR
    assert npu.call(target, (16, 16), torch.float16, ND, NC1HWC0, AS_THE_SOURCE)[0] == RUNTIME_ERROR


@pytest.mark.chips("910B3")
def test_wrong_arguments_are_refused(npu: Npu) -> None:
    good = ((16, 16), torch.float16, ND, FRACTAL_NZ, AS_THE_SOURCE)
    for name in ("source", "shape", "size", "actual"):
        assert npu.call(target, *good, **{name: 0})[0] == PARAM_NULL, name
    for wild in (0x1234, (1 << 47) + 8):
        assert npu.call(target, *good, source=wild)[0] == PARAM_INVALID
    assert npu.call(target, (16,), torch.float16, ND, FRACTAL_NZ, AS_THE_SOURCE)[0] == PARAM_INVALID
    assert npu.call(target, (16, 16), torch.int64, ND, FRACTAL_NZ, AS_THE_SOURCE)[0] == PARAM_INVALID
    assert npu.call(target, (16, 16), torch.float16, ND, FRACTAL_NZ, 1000)[0] == PARAM_INVALID


@pytest.mark.chips("310P3")
def test_310p_has_no_such_operator(npu: Npu) -> None:
    assert npu.call(target, (16, 16), torch.float16, ND, FRACTAL_NZ, AS_THE_SOURCE)[0] == PARAM_INVALID


def cast(target_format: int, storage: Sequence[int] | None, sizes: Sequence[int], dtype: torch.dtype) -> int:
    """The answer to a cast of [16, 40] float16 to such a tensor."""
    chip = Chip.get()
    value = torch.zeros(4096, dtype=dtype)
    strides = torch.empty(sizes, device="meta").stride()
    out = Tensor(value, sizes, strides, format=target_format, storage_sizes=storage)
    answer = chip.call("NpuFormatCast", srcTensor=Tensor(torch.zeros(16, 40, dtype=torch.float16)), dstTensor=out)
    chip.clear()
    return answer.code


@pytest.mark.chips("910B3")
def test_a_tensor_that_does_not_fit_is_refused(npu: Npu) -> None:
    nz = [3, 1, 16, 16]
    assert npu.call(cast, FRACTAL_NZ, nz, (16, 40), torch.float16) == 0
    assert npu.call(cast, FRACTAL_NZ, [2, 1, 16, 32], (16, 40), torch.float16) == PARAM_INVALID
    assert npu.call(cast, FRACTAL_NZ, [3, 2, 16, 16], (16, 40), torch.float16) == PARAM_INVALID
    assert npu.call(cast, FRACTAL_NZ, nz, (15, 40), torch.float16) == PARAM_INVALID
    assert npu.call(cast, FRACTAL_NZ, nz, (16, 40), torch.bfloat16) == PARAM_INVALID
    assert npu.call(cast, ND, None, (16, 40), torch.float16) == PARAM_INVALID
