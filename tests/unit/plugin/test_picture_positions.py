"""Position embeddings of pictures, planned on the host, are those of upstream."""

from __future__ import annotations

import pytest
import torch

from ascend_plugin.compat import picture_positions

SIDE, HIDDEN = 8, 16


class Tower(torch.nn.Module):
    """What the method reads of a vision tower."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.pos_embed = torch.nn.Embedding(SIDE * SIDE, HIDDEN, dtype=dtype)
        self.num_grid_per_side, self.spatial_merge_size = SIDE, 2

    def fast_pos_embed_interpolate(self, grid_thw: list[list[int]]) -> torch.Tensor:
        raise AssertionError("this is the one to be replaced")


def upstream(tower: Tower, grids: list[list[int]]) -> torch.Tensor:
    from vllm.model_executor.models.qwen3_vl import pos_embed_interpolate_native

    weight = tower.pos_embed.weight
    return torch.cat([pos_embed_interpolate_native(weight, *grid, SIDE, 2, weight.dtype) for grid in grids])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize("grids", [[[1, 2, 2]], [[1, 4, 6], [3, 8, 2], [1, 20, 10], [1, 4, 6]]])
def test_the_same_embeddings(dtype: torch.dtype, limit: float, grids: list[list[int]]) -> None:
    tower = Tower(dtype)
    picture_positions.apply(torch.nn.Sequential(tower))
    with torch.inference_mode():
        found, expected = tower.fast_pos_embed_interpolate(grids), upstream(tower, grids)
    assert found.dtype == dtype and found.shape == (sum(t * h * w for t, h, w in grids), HIDDEN)
    assert float((found.float() - expected.float()).abs().max()) < limit


def test_a_transposed_grid_gives_others() -> None:
    tower = Tower(torch.float32)
    with torch.inference_mode():
        one, other = (picture_positions.embeddings_of(tower, [grid]) for grid in ([1, 4, 6], [1, 6, 4]))
    assert float((one - other).abs().max()) > 0.1


def test_modules_without_such_a_table_are_left_alone() -> None:
    plain = torch.nn.Linear(2, 2)
    picture_positions.apply(plain)
    assert "fast_pos_embed_interpolate" not in plain.__dict__
    assert picture_positions.plan(4, 6, SIDE, 2) is picture_positions.plan(4, 6, SIDE, 2)
