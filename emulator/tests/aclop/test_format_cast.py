"""Format casts reach the device as aclop Identity, on 910B since CANN 9.1.0 as aclnnNpuFormatCast; an aclop
operator that is not emulated is refused by name."""

from __future__ import annotations

import ctypes

import pytest
from ascend_emulator.pytest_plugin import Npu

FRACTAL_NZ, ND = 29, 2


def cast_there_and_back(sizes: tuple[int, ...], dtype_name: str) -> tuple[bool, bool]:
    """Whether the fractal storage holds the elements where the layout says, and whether they come back."""
    import torch
    import torch_npu

    torch.npu.config.allow_internal_format = True  # 910B's default is not to have any
    dtype = getattr(torch, dtype_name)
    torch.manual_seed(0)
    tensor = torch.randint(-100, 100, sizes).to(dtype)
    cast = torch_npu.npu_format_cast(tensor.npu(), FRACTAL_NZ)
    width = 32 if tensor.element_size() == 1 else 16
    *_, rows, cols = sizes
    padded = torch.nn.functional.pad(tensor.view(-1, rows, cols), (0, -cols % width, 0, -rows % 16))
    expected = padded.view(len(padded), padded.shape[1], -1, width).transpose(1, 2).flatten()
    torch.npu.synchronize()
    raw = torch.empty_like(expected)
    ctypes.memmove(raw.data_ptr(), cast.data_ptr(), raw.nbytes)  # the storage itself, past every conversion
    back = torch_npu.npu_format_cast(cast, ND)
    return torch.equal(raw, expected), torch.equal(back.cpu(), tensor)


@pytest.mark.chips("310P3", "910B3")
@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
@pytest.mark.parametrize("sizes", [(48, 40), (16, 32), (3, 17, 65), (2, 6, 128, 16)])
def test_cast_there_and_back(npu: Npu, sizes: tuple[int, ...], dtype: str) -> None:
    assert npu.call(cast_there_and_back, sizes, dtype) == (True, True)


def casts_counted() -> tuple[int, dict[str, int]]:
    import torch
    import torch_npu
    from ascend_emulator import counters

    torch.npu.config.allow_internal_format = True
    tensor = torch.zeros(32, 32, dtype=torch.float16).npu()
    torch.npu.synchronize()
    counters.reset_stats()
    cast = torch_npu.npu_format_cast(tensor, FRACTAL_NZ)
    cast.cpu()
    counted = counters.stats()
    return counted["format_casts"], {name: number for name, number in counted["launches"].items() if "ast" in name}


@pytest.mark.chips("310P3", "910B3")
def test_casts_are_counted(npu: Npu) -> None:
    assert npu.call(casts_counted)[0] == 2


@pytest.mark.chips("910B3")
def test_casts_on_910b_are_operators(npu: Npu) -> None:
    assert npu.call(casts_counted)[1] == {"aclnnNpuFormatCast": 2}


def call_another_operator() -> None:
    from ascend_emulator import activation

    library = next(loaded for loaded in activation.loaded() if hasattr(loaded, "aclopCompileAndExecute"))
    status = library.aclopCompileAndExecute(b"MatMulV2", 0, None, None, 0, None, None, None, 0, 0, None, None)
    library.aclGetRecentErrMsg.restype = ctypes.c_char_p
    raise RuntimeError(status, library.aclGetRecentErrMsg().decode())


@pytest.mark.chips("310P3")
def test_other_operators_are_refused_by_name(npu: Npu) -> None:
    with pytest.raises(RuntimeError, match="MatMulV2") as refusal:
        npu.call(call_another_operator)
    assert refusal.value.args[0] != 0


def identity(**changes: int) -> int:
    """The answer to a cast of which some handles are others, or the output's buffer has another size."""
    from aclnn.direct import POINTER, SIZE, Chip, int64s

    chip = Chip.get()
    from ascend_emulator import activation

    library = next(each for each in activation.loaded() if hasattr(each, "aclopCompileAndExecute"))
    for name in ("aclCreateTensorDesc", "aclCreateDataBuffer"):
        getattr(chip.runtime, name).restype = POINTER
    sizes = int64s([2, 32])
    handles = {}
    for side in ("input", "output"):
        size = SIZE(changes.get(f"{side}_bytes", 128))
        handles[side] = POINTER(chip.runtime.aclCreateTensorDesc(ctypes.c_int(1), 2, sizes, ctypes.c_int(ND)))
        handles[f"{side}_buffer"] = POINTER(chip.runtime.aclCreateDataBuffer(POINTER(chip.malloc(128)), size))
    arrays = {name: (POINTER * 1)(POINTER(changes.get(name, handle.value))) for name, handle in handles.items()}
    code = library.aclopCompileAndExecute(
        b"Identity", 1, arrays["input"], arrays["input_buffer"], 1, arrays["output"], arrays["output_buffer"],
        POINTER(changes.get("attributes", 0)), 0, 0, None, chip.stream,
    )  # fmt: skip
    assert chip.runtime.aclrtSynchronizeStream(chip.stream) == 0
    for side in ("input", "output"):
        chip.runtime.aclDestroyTensorDesc(handles[side])
        chip.runtime.aclDestroyDataBuffer(handles[f"{side}_buffer"])
    chip.clear()
    return int(code)


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("wild", [0, 0x1234, (1 << 47) + 8])
@pytest.mark.parametrize("name", ["input", "input_buffer", "output", "output_buffer", "attributes"])
def test_what_does_not_exist_is_refused(npu: Npu, name: str, wild: int) -> None:
    absent = name == "attributes" and wild == 0  # Identity has none
    assert npu.call(identity, **{name: wild}) == (0 if absent else 100000)


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_buffer_that_is_too_small_is_refused(npu: Npu, side: str) -> None:
    assert npu.call(identity, **{f"{side}_bytes": 127}) == 100000
