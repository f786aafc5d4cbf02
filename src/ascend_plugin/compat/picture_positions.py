"""Position embeddings of pictures (Qwen3-VL, Qwen3.5 and kin) are planned on the host, for all pictures at once.

Reason: upstream works out each picture's places on the device, some thirty launches a picture, with additions of int64
that Ascend 310P faults on at most lengths; its other form is a Triton kernel.
Upstream: vllm/model_executor/models/qwen3_vl.py, Qwen3_VisionTransformer.fast_pos_embed_interpolate and
pos_embed_interpolate_native, and the method of the same name in qwen3_omni_moe_thinker.py.
Held by: tests/unit/plugin/test_picture_positions.py, tests/upstream/test_patches.py.
Exit: when upstream plans them on the host, or asks the platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

METHOD = "fast_pos_embed_interpolate"


def apply(model: torch.nn.Module) -> None:
    """Give a loaded model's vision towers our method in the place of theirs."""
    for module in model.modules():
        if callable(getattr(type(module), METHOD, None)) and isinstance(
            getattr(module, "pos_embed", None), torch.nn.Module
        ):
            module.__dict__[METHOD] = partial(embeddings_of, module)


def embeddings_of(tower: Any, grid_thw: Sequence[Sequence[int]]) -> torch.Tensor:
    """[patches, hidden] for pictures of grids (frames, rows, columns), each weighed from four learned ones."""
    weight = tower.pos_embed.weight
    side, merge = tower.num_grid_per_side, tower.spatial_merge_size
    plans = [(plan(h, w, side, merge), t) for t, h, w in torch.as_tensor(grid_thw).tolist()]
    places = np.concatenate([np.tile(found[0], t) for found, t in plans], axis=1)
    shares = np.concatenate([np.tile(found[1], t) for found, t in plans], axis=1)
    on_device = [_upload(torch.from_numpy(array), weight.device) for array in (places, shares)]
    corners = weight.index_select(0, on_device[0].flatten()).view(*places.shape, -1)
    return corners.mul_(on_device[1].to(weight.dtype).unsqueeze(-1)).sum(dim=0)


@lru_cache(maxsize=1024)
def plan(rows: int, columns: int, side: int, merge: int) -> tuple[np.ndarray, np.ndarray]:
    """[4, rows * columns] places in the table of side * side embeddings and their shares, merged patches together.

    The corners of each patch come in the order: both floors, next column, next row, both.
    """
    down, across = (np.linspace(0, side - 1, count, dtype=np.float32) for count in (rows, columns))
    first = down.astype(np.int32), across.astype(np.int32)
    rest = (down - first[0])[:, None], (across - first[1])[None, :]
    second = tuple(np.minimum(start + 1, side - 1) for start in first)
    places = np.stack([r[:, None] * side + c[None, :] for r in (first[0], second[0]) for c in (first[1], second[1])])
    both = rest[0] * rest[1]
    shares = np.stack([1 - rest[0] - rest[1] + both, rest[1] - both, rest[0] - both, both])
    blocks = (4, rows // merge, merge, columns // merge, merge)
    ordered = (array.reshape(blocks).transpose(0, 1, 3, 2, 4).reshape(4, -1) for array in (places, shares))
    found = tuple(np.ascontiguousarray(array) for array in ordered)
    return found[0], found[1].astype(np.float32)


def _upload(array: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Without waiting: the allocator of pinned memory keeps it until the copy is done."""
    return array.pin_memory().to(device, non_blocking=True) if device.type != "cpu" else array
