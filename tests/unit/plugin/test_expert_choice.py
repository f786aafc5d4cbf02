"""Experts without weights of their own, and layers of experts without a gate."""

from __future__ import annotations

import pytest
import torch

from ascend_plugin.compat.expert_routing import UNGATED, _allow_experts_without_a_gate
from ascend_plugin.ops.expert_choice import identity_experts


def test_experts_that_hand_on_what_they_get() -> None:
    """Of four experts the last two are such: a token gets itself, as often as their weights say."""
    tokens = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float16)
    ids, weights = torch.tensor([[0, 2], [3, 2], [1, 0]]), torch.tensor([[0.5, 0.25], [0.5, 1.0], [1.0, 1.0]])
    before = ids.clone(), weights.clone()
    found = identity_experts(ids, weights, 2, "identity", tokens)
    assert found.dtype == torch.float16
    assert found.tolist() == [[0.25, -0.5], [4.5, 6.0], [0.0, 0.0]]
    assert ids.equal(before[0]) and weights.equal(before[1])
    with pytest.raises(NotImplementedError, match="of the kind 'copy'"):
        identity_experts(ids, weights, 2, "copy", tokens)


def test_a_layer_of_experts_may_have_no_gate() -> None:
    class Layer:
        def __init__(self, error: Exception | None) -> None:
            self.error, self.done = error, False
            self.__post_init__()

        def __post_init__(self) -> None:
            self.done = True
            if self.error is not None:
                raise self.error

    refusal = NotImplementedError(f"{UNGATED} CUDA, XPU and ROCm for now")
    with pytest.raises(NotImplementedError):
        Layer(refusal)
    for _ in range(2):
        _allow_experts_without_a_gate(Layer)
    assert Layer(refusal).done and Layer(None).done
    for other in (NotImplementedError("another"), ValueError(UNGATED)):
        with pytest.raises(type(other)):
            Layer(other)
