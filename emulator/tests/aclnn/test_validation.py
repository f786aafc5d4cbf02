"""Every tensor of every call is checked at one place: no descriptor can take the process, or a neighbour, with it.

Each of these ended in a signal, wrote beside its tensor, or said success and left the output as it was.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ascend_emulator.launcher import emulate
from ascend_emulator.pytest_plugin import Npu

from .direct import FRACTAL_NZ, Answer, Chip, Tensor

REFUSED = 161002  # ACLNN_ERR_PARAM_INVALID
FOUR = torch.arange(4.0)


def call(name: str, /, **given: Any) -> Answer:
    return Chip.get().call(name, **given)


DESCRIPTORS = {
    "a negative stride": ({"sizes": [2], "strides": [-1]}, "neither may be negative"),
    "a negative size": ({"sizes": [-2], "strides": [1]}, "neither may be negative"),
    "a stride that overflows": ({"sizes": [3], "strides": [2**62]}, "beyond any storage"),
    "sizes that overflow": ({"sizes": [2**40, 2**40], "strides": [1, 1]}, "storage of 4"),
    "a negative offset": ({"offset": -1}, "beyond any storage"),
    "a view behind its storage": ({"offset": 1}, "ends at element 5 of a storage of 4"),
    "a stride that leaves the storage": ({"strides": [2]}, "ends at element 7 of a storage of 4"),
    "a storage that is not allocated": ({"sizes": [2**24], "storage_sizes": [2**24]}, "not allocated device memory"),
    "an empty tensor of too many": ({"sizes": [2**40, 2**40, 0], "strides": [0, 0, 1]}, "overflow"),
}


def describe(changes: dict[str, Any]) -> Answer:
    return call("InplaceSinc", selfRef=Tensor(FOUR.clone(), **changes))


@pytest.mark.parametrize("case", DESCRIPTORS)
def test_a_descriptor_that_cannot_be_is_refused(npu: Npu, case: str) -> None:
    changes, reason = DESCRIPTORS[case]
    answer = npu.call(describe, changes)
    assert (answer.code, answer.phase) == (REFUSED, 1), answer
    assert reason in answer.message


def nz_beyond_its_storage() -> Answer:
    """A batch of three matrices whose storage says three, at an offset of one."""
    weight = torch.zeros(3 * 32 * 32, dtype=torch.float16)
    view = Tensor(weight, [3, 32, 32], [1024, 32, 1], 1024, [3, 2, 2, 16, 16], format=FRACTAL_NZ)
    return call(
        "GroupedMatmulV5",
        x=[torch.zeros(6, 32, dtype=torch.float16)],
        weight=[view],
        groupListOptional=torch.tensor([2, 2, 2]),
        splitItem=3,
        groupListType=1,
        out=[torch.zeros(6, 32, dtype=torch.float16)],
    )


@pytest.mark.chips("910B3")
def test_fractal_weights_stay_in_their_storage(npu: Npu) -> None:
    answer = npu.call(nz_beyond_its_storage)
    assert (answer.code, answer.phase) == (REFUSED, 1), answer
    assert "reaches beyond its storage" in answer.message


def quant_matmul(sizes: list[int]) -> Answer:
    return call(
        "QuantMatmulV5",
        x1=torch.zeros(sizes, dtype=torch.int8),
        x2=torch.zeros(8, 16, dtype=torch.int8),
        x2Scale=torch.ones(16),
        transposeX1=True,
        out=torch.zeros(8, 16, dtype=torch.bfloat16),
    )


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("sizes", [[8], []])
def test_a_dimension_that_does_not_exist_is_refused(npu: Npu, sizes: list[int]) -> None:
    answer = npu.call(quant_matmul, sizes)
    assert (answer.code, answer.phase) == (REFUSED, 1), answer
    assert "Dimension" in answer.message


# An operator, its inputs, and an output of sizes that it does not have.
WRONG_OUTPUTS: dict[str, dict[str, Any]] = {
    "NanToNum": {"self": FOUR, "out": torch.zeros(3)},
    "LeakyRelu": {"self": FOUR, "negativeSlope": 0.1, "out": torch.zeros(1)},
    "ClampMin": {"self": FOUR, "clipValueMin": 1.0, "out": torch.zeros(2)},
    "Glu": {"self": FOUR, "dim": 0, "out": torch.zeros(4)},
    "LogicalNot": {"self": FOUR, "out": torch.zeros(2, dtype=torch.bool)},
    "Addcdiv": {"self": FOUR, "tensor1": FOUR, "tensor2": FOUR + 1, "value": 1.0, "out": torch.zeros(3)},
    "Triu": {"self": FOUR.view(2, 2), "diagonal": 0, "out": torch.zeros(4)},
    "Take": {"self": FOUR, "index": torch.tensor([0, 1]), "out": torch.zeros(3)},
    "Stack": {"tensors": [FOUR, FOUR], "dim": 0, "out": torch.zeros(4)},
    "Index": {"self": FOUR, "indices": [torch.tensor([0, 1])], "out": torch.zeros(3)},
    "Roll": {"x": FOUR, "shifts": [1], "dims": [0], "out": torch.zeros(1)},
}


def with_wrong_output(operator: str) -> Answer:
    return call(operator, **WRONG_OUTPUTS[operator])


@pytest.mark.parametrize("operator", WRONG_OUTPUTS)
def test_an_output_of_other_sizes_is_refused_before_the_launch(npu: Npu, operator: str) -> None:
    answer = npu.call(with_wrong_output, operator)
    assert not answer.ran, f"aclnn{operator} said success and left its output as it was"
    assert (answer.code, answer.phase) == (REFUSED, 1), answer


def die_in_a_kernel() -> None:
    """A fatal signal while a kernel of some seconds runs on its stream's thread."""
    import ctypes
    import os
    import signal
    import time

    chip = Chip.get()
    code, executor, _ = chip.prepare("InplaceNormal", selfRef=torch.zeros(1 << 26), mean=0.0, std=1.0, seed=1, offset=0)
    assert code == 0
    assert chip.operators.aclnnInplaceNormal(None, ctypes.c_uint64(0), executor, chip.stream) == 0
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def test_a_fault_names_the_running_kernel() -> None:
    script = "from aclnn.test_validation import die_in_a_kernel; die_in_a_kernel()"
    with emulate(chip="310P3", count=1) as machine:
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        ended = machine.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGSEGV
    told = "while aclnnInplaceNormal was running, selfRef float32 [67108864,] strides [1,]"
    assert told in ended.stderr


def replay_over_freed_memory() -> tuple[int, str]:
    """A captured launch whose tensor was given back before the replay."""
    import ctypes

    chip = Chip.get()
    target = Tensor(torch.ones(1 << 20))
    chip.place(target)
    graph = ctypes.c_void_p()
    chip.check("aclmdlRICaptureBegin", chip.stream, 2)
    code, executor, _ = chip.prepare("InplaceExp", selfRef=target)
    assert code == 0, chip._message()
    assert chip.operators.aclnnInplaceExp(None, ctypes.c_uint64(0), executor, chip.stream) == 0
    chip.check("aclmdlRICaptureEnd", chip.stream, ctypes.byref(graph))
    chip.runtime.aclrtFree(ctypes.c_void_p(target.address))
    chip.check("aclmdlRIExecuteAsync", graph, chip.stream)
    code = chip.runtime.aclrtSynchronizeStream(chip.stream)
    message = chip._message()
    chip.revive()
    return code, message


def test_a_replay_over_freed_memory_is_a_device_error(npu: Npu) -> None:
    code, message = npu.call(replay_over_freed_memory)
    assert code == 507015
    assert "selfRef" in message and "not allocated device memory" in message


def nonzero_in_a_capture() -> tuple[int, int]:
    """The code of an operator whose result only the device knows, captured; and that of a replay of what remains."""
    import ctypes

    chip = Chip.get()
    graph, found = ctypes.c_void_p(), Tensor(torch.zeros(4, 1, dtype=torch.int64))
    chip.check("aclmdlRICaptureBegin", chip.stream, 2)
    code, executor, _ = chip.prepare("Nonzero", self=torch.ones(4), out=found)
    assert code == 0, chip._message()
    launched = chip.operators.aclnnNonzero(None, ctypes.c_uint64(0), executor, chip.stream)
    chip.check("aclmdlRICaptureEnd", chip.stream, ctypes.byref(graph))
    chip.check("aclmdlRIExecuteAsync", graph, chip.stream)
    chip.check("aclrtSynchronizeStream", chip.stream)
    return launched, int(chip.download(found).sum())


def test_a_result_of_unknown_size_does_not_stay_in_a_graph(npu: Npu) -> None:
    launched, written = npu.call(nonzero_in_a_capture)
    assert launched == 107027  # stream is captured
    assert written == 0
