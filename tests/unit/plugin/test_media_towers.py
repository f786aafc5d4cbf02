"""TowerMode begins and ends, and a model is wrapped once; on chips: the multimodal rows of `python -m conformance`."""

from __future__ import annotations

import pytest
import torch
from torch._C import _len_torch_dispatch_stack

from ascend_plugin.media_towers import METHOD, prepare, tower_mode


def test_the_mode_nests_and_ends() -> None:
    with tower_mode():
        with tower_mode():
            assert torch.equal(torch.arange(3) + 1, torch.tensor([1, 2, 3]))
        assert modes() == 1
    assert modes() == 0
    with pytest.raises(ValueError, match="no"), tower_mode():
        raise ValueError("no")
    assert modes() == 0


def modes() -> int:
    return _len_torch_dispatch_stack()


def test_a_model_is_prepared_once() -> None:
    class Model(torch.nn.Module):
        def embed_multimodal(self, lengths: torch.Tensor) -> tuple[torch.Tensor, bool]:
            return lengths + 1, modes() == 1

    model, text = Model(), torch.nn.Linear(1, 1)
    prepare(model)
    wrapped = model.__dict__[METHOD]
    prepare(model)
    prepare(text)
    assert model.__dict__[METHOD] is wrapped
    assert METHOD not in text.__dict__
    sums, active = model.embed_multimodal(torch.tensor([1]))
    assert active
    assert sums.item() == 2
