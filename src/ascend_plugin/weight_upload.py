"""Uploading weights without waiting for each of them, and what layers draw before they have weights."""

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


class HostDraws(TorchDispatchMode):
    """While active, tensors of the device are drawn on the host: 310P hangs in it (vllm-ascend #8017).

    torch's own layers (nn.Linear, nn.Conv2d) draw weights when they are made: heads of classifiers, and most of what
    towers for images and sound consist of.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWN and args[0].device.type == "npu":
            target, *bounds = args
            generator = (kwargs or {}).get("generator")
            if generator is not None:  # the device's, which draws nothing on the host
                generator = torch.Generator().manual_seed(generator.initial_seed())
            drawn = torch.empty(target.shape, dtype=target.dtype)
            return target.copy_(func(drawn, *bounds, generator=generator))
        return func(*args, **(kwargs or {}))


DRAWN = (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
