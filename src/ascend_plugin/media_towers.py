"""Towers for images and sound on chips that lack part of what PyTorch's towers ask of a device.

A tower works out lengths and masks in int64 before its first product. Ascend 310P faults in such additions
(docs/strict.md, rule int64_add), and what a few integers cost on a device is launches, not arithmetic. So integers stay
on the host until they meet values of the device. Convolutions and sliding windows become products (ops/convolution.py).
Source: vllm/v1/worker/gpu_model_runner.py, _execute_mm_encoder, which moves what a processor gave to the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ascend_plugin.ops import convolution

METHOD = "embed_multimodal"
aten = torch.ops.aten
# Which make a tensor of nothing; arange alone gives integers without being told a dtype.
FACTORIES = {aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format}
RANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}
# Which PyTorch takes apart before a mode sees them, but not in inference mode.
COMPOSITE = {
    *(getattr(aten.to, name) for name in ("device", "dtype", "dtype_layout", "other")),
    *(getattr(operator, name) for operator in (aten.conv1d, aten.conv2d) for name in ("default", "padding")),
}


class TowerMode(TorchDispatchMode):
    """While active, integers are made and kept on the host, and go to the device with the operator that needs them.

    An operator that writes into a tensor of the host runs there.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSITE:
            with self:  # modes are off while one of them is asked
                return func.decompose(*args, **kwargs)
        if func in (aten.im2col.default, aten.convolution.default) and args[0].device.type == "npu":
            return _by_product(func, args)
        if _is_made_on_device(func, args, kwargs) or _moves_integers(func, args, kwargs):
            return func(*args, **{**kwargs, "device": torch.device("cpu"), "pin_memory": None})
        if func is aten._to_copy.default or func is aten.copy_.default:
            return func(*args, **kwargs)
        if func is aten.lift_fresh.default and _is_integer(args[0].dtype):  # torch.tensor([...], device=...)
            return args[0].cpu()
        if func.namespace != "aten":  # whose callers know which arguments are of the host
            return func(*args, **kwargs)
        devices: set[str] = set()
        tree_map_only(torch.Tensor, lambda tensor: devices.add(_side(tensor)), (args, kwargs))
        if {"cpu", "npu"} <= devices:
            writes = func._schema.is_mutable and isinstance(args[0], torch.Tensor) and args[0].device.type == "cpu"
            args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu if writes else _to_device, (args, kwargs))
        return func(*args, **kwargs)


_active = False


@contextmanager
def tower_mode() -> Iterator[None]:
    """TowerMode, once: inside of itself it changes nothing."""
    global _active
    if _active:
        yield
        return
    _active = True
    try:
        with TowerMode():  # type: ignore[no-untyped-call]
            yield
    finally:
        _active = False


def prepare(model: torch.nn.Module) -> None:
    """Let a model's towers run so. Can be repeated."""
    embed = getattr(model, METHOD, None)
    if embed is not None and METHOD not in model.__dict__:
        model.__dict__[METHOD] = tower_mode()(embed)  # a context is a decorator too


def _by_product(func: Any, args: Any) -> torch.Tensor:
    if func is aten.im2col.default:
        return convolution.windows(*args)
    values, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed or groups != 1:
        found: torch.Tensor = func(*args)
        return found
    return convolution.convolve(values, weight, bias, stride, padding, dilation)


def _is_made_on_device(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    if not _is_npu(kwargs.get("device")):
        return False
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return (func in FACTORIES or func in RANGES) and _is_integer(dtype)
    return func in RANGES and all(isinstance(value, int) for value in args)


def _moves_integers(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    if func is not aten._to_copy.default or not _is_npu(kwargs.get("device")) or args[0].device.type != "cpu":
        return False
    return args[0].dim() > 0 and _is_integer(kwargs.get("dtype") or args[0].dtype)


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _is_npu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "npu"


def _side(tensor: torch.Tensor) -> str:
    """Where a tensor is; single numbers of the host are taken by every operator."""
    return tensor.device.type if tensor.dim() or tensor.device.type != "cpu" else "anywhere"


def _to_device(tensor: torch.Tensor) -> torch.Tensor:
    if _side(tensor) != "cpu":
        return tensor
    return tensor.pin_memory().to("npu", non_blocking=True)
