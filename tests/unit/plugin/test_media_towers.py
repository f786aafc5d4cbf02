"""Windows of images as a view, and that TowerMode begins and ends; on chips: tests/models, the multimodal rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from ascend_plugin.media_towers import METHOD, TowerMode, prepare, windows


@given(
    some.integers(1, 3), some.integers(1, 4), some.integers(1, 3), some.integers(1, 3), some.integers(1, 9),
    some.integers(1, 9), some.booleans(),
)  # fmt: skip
def test_windows_are_those_of_torch(
    images: int, channels: int, height: int, width: int, rows: int, columns: int, batched: bool
) -> None:
    shape = (channels, rows + height - 1, columns + width - 1)
    given_images = torch.randn((images, *shape) if batched else shape)
    size = (height, width)
    want = torch.nn.functional.unfold(given_images, size, stride=size)
    assert torch.equal(windows(given_images, size, (1, 1), (0, 0), size), want)


@pytest.mark.parametrize("change", [{"stride": (1, 2)}, {"padding": (1, 0)}, {"dilation": (2, 2)}])
def test_windows_that_overlap_are_refused(change: dict[str, tuple[int, int]]) -> None:
    arguments = {"size": (2, 2), "dilation": (1, 1), "padding": (0, 0), "stride": (2, 2)} | change
    with pytest.raises(NotImplementedError, match="Use another model: overlapping windows"):
        windows(torch.ones(1, 1, 4, 4), **arguments)


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
