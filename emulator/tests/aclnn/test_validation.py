"""Every tensor of every call is checked at one place: no descriptor can take the process, or a neighbour, with it.

Each of these ended in a signal, wrote beside its tensor, or said success and left the output as it was.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

from .direct import FRACTAL_NZ, Answer, Chip, Tensor, signatures

REFUSED = 161002  # ACLNN_ERR_PARAM_INVALID
FOUR = torch.arange(4.0)


def call(name: str, **given: Any) -> Answer:
    return Chip.get().call(name, **given)


def with_memory_after(name: str, **given: Any) -> tuple[Answer, list[torch.Tensor]]:
    """The answer, and what the tensors of the call hold afterwards."""
    chip = Chip.get()
    tensors = {key: value if isinstance(value, Tensor) else Tensor(value) for key, value in given.items()}
    for tensor in tensors.values():
        chip.place(tensor)
    code, executor, _ = chip.prepare(name, **tensors)
    assert not (code == 0 and executor.value is None)
    return Answer(code, 1, ""), [chip.download(tensor) for tensor in tensors.values()]


DESCRIPTORS = {
    "a negative stride": ({"sizes": [2], "strides": [-1]}, "neither may be negative"),
    "a negative size": ({"sizes": [-2], "strides": [1]}, "neither may be negative"),
    "a stride that overflows": ({"sizes": [3], "strides": [2**62]}, "beyond any storage"),
    "sizes that overflow": ({"sizes": [2**40, 2**40], "strides": [1, 1]}, "storage of 4"),
    "a negative offset": ({"offset": -1}, "beyond any storage"),
    "a view behind its storage": ({"offset": 1}, "ends at element 5 of a storage of 4"),
    "a stride that leaves the storage": ({"strides": [2]}, "ends at element 7 of a storage of 4"),
    "a storage that is not allocated": ({"sizes": [2**24], "storage_sizes": [2**24]}, "not allocated device memory"),
    "an empty tensor of too many": ({"sizes": [2**40, 2**40, 0], "strides": [0, 0, 1]}, ""),
}


def describe(changes: dict[str, Any]) -> Answer:
    tensor = Tensor(FOUR.clone(), **changes)
    return call("InplaceSinc", self=tensor) if "self" in names("InplaceSinc") else call("InplaceSinc", selfRef=tensor)


def names(operator: str) -> list[str]:
    return [parameter.name for parameter in signatures()[operator].parameters]


@pytest.mark.parametrize("case", DESCRIPTORS)
def test_a_descriptor_that_cannot_be_is_refused(npu: Npu, case: str) -> None:
    changes, reason = DESCRIPTORS[case]
    answer = npu.call(describe, changes)
    if reason:
        assert (answer.code, answer.phase) == (REFUSED, 1), answer
        assert reason in answer.message
    else:
        assert answer.ran, answer


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


@pytest.mark.parametrize("operator", WRONG_OUTPUTS)
def test_an_output_of_other_sizes_is_an_error(npu: Npu, operator: str) -> None:
    answer = npu.call(call, operator, **WRONG_OUTPUTS[operator])
    assert not answer.ran, f"aclnn{operator} said success and left its output as it was"


@pytest.mark.parametrize("operator", WRONG_OUTPUTS)
def test_it_is_refused_before_the_launch(npu: Npu, operator: str) -> None:
    answer = npu.call(call, operator, **WRONG_OUTPUTS[operator])
    assert (answer.code, answer.phase) == (REFUSED, 1), answer


@pytest.mark.parametrize("operator", WRONG_OUTPUTS)
def test_refusing_writes_nothing(npu: Npu, operator: str) -> None:
    given = {key: value for key, value in WRONG_OUTPUTS[operator].items() if isinstance(value, torch.Tensor)}
    if len(given) != len(WRONG_OUTPUTS[operator]):
        pytest.skip("the arguments are not all tensors")
    answer, after = npu.call(with_memory_after, operator, **given)
    assert answer.code == REFUSED
    for before, now in zip(given.values(), after, strict=True):
        torch.testing.assert_close(now, before)
