"""Weights of a model that is being made: none is drawn, and none is waited for when it is sent."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PinnedUploads(TorchDispatchMode):
    """While active, copies from ordinary host memory to the device go through pinned memory and return at once.

    vLLM's loaders copy a checkpoint tensor by tensor from mapped files, and such a copy waits until it is done. Pinned
    memory lets the device fetch one tensor while the host reads the next from disk; PyTorch's host allocator keeps it
    until the copy is over, and uses it again. A conversion of dtype happens on the way, on the host.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and _waits(args[0], args[1]):
            target, source = args[:2]
            pinned = torch.empty(source.shape, dtype=target.dtype, pin_memory=True)
            pinned.copy_(source)
            return target.copy_(pinned, non_blocking=True)
        return func(*args, **(kwargs or {}))


def _waits(target: torch.Tensor, source: Any) -> bool:
    if not isinstance(source, torch.Tensor):
        return False  # `scale[:] = 1.0` is a copy too
    return target.device.type == "npu" and source.device.type == "cpu" and not source.is_pinned()


class NoRandomWeights(TorchDispatchMode):
    """While active, what would be drawn on the device is zero.

    torch's own layers draw their first weights when they are made, which the checkpoint then replaces. Towers for
    images and sound are full of such layers, and random numbers on the device hang on some chips (rule device_random).
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func in DRAWN and not (kwargs or {}).get("generator")  # with one, they are weights to compute with
        if drawn and args[0].device.type != "cpu":
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


DRAWN = (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
