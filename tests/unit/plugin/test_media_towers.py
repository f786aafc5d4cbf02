"""TowerMode begins and ends, and a model is wrapped once; on chips: the multimodal rows of `python -m conformance`."""

from __future__ import annotations

import pytest
import torch

from ascend_plugin.media_towers import METHOD, TowerMode, prepare


def test_the_mode_nests_and_ends() -> None:
    with TowerMode():
        with TowerMode():
            assert torch.equal(torch.arange(3) + 1, torch.tensor([1, 2, 3]))
        assert TowerMode.active
    assert not TowerMode.active
    with pytest.raises(ValueError, match="no"), TowerMode():
        raise ValueError("no")
    assert not TowerMode.active


def test_a_model_is_prepared_once() -> None:
    class Model(torch.nn.Module):
        def embed_multimodal(self, lengths: torch.Tensor) -> tuple[torch.Tensor, bool]:
            return lengths + 1, TowerMode.active

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
