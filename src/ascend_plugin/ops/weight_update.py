"""Weights that are loaded again into a model that serves, in the layout that its products read.

vLLM's loaders copy shards (of queries, keys and values; of gates and ups; of a rank) into parts of a parameter. A part
of a matrix in a private format is no range of memory: torch_npu 2.13 ends such a copy in an error of the device, or
writes it to another place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch_npu
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from ascend_plugin.ops.formats import ND


class NotLoadable(NotImplementedError):
    """Weights that were made into others when they were loaded; the message has the way that loads them again."""


class WritesToParts(TorchDispatchMode):
    """While active, a copy into a part of one matrix in a private format goes by way of its plain form."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.matrix = matrix

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and self._is_part(args[0]):
            part, source = args[:2]
            plain = torch_npu.npu_format_cast(self.matrix, ND)
            plain.as_strided(part.size(), part.stride(), part.storage_offset()).copy_(source)
            self.matrix.copy_(plain)
            return part
        return func(*args, **(kwargs or {}))

    def _is_part(self, target: torch.Tensor) -> bool:
        return (
            target.untyped_storage()._cdata == self.matrix.untyped_storage()._cdata
            and target.shape != self.matrix.shape
        )


def load_by_parts(parameter: torch.nn.Parameter) -> None:
    """Give a parameter in a private format a weight loader that may write parts of it. Can be repeated."""

    def within(load: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with WritesToParts(parameter.data):
            return load(*arguments, **named)

    _wrap(parameter, within)


def load_twice(table: torch.nn.Parameter, copies: Callable[[], torch.Tensor]) -> None:
    """Give a table that is looked up a weight loader that renews the matrix made of it. Can be repeated."""

    def then_copy(load: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        result = load(*arguments, **named)
        copies().copy_(table.data)
        return result

    _wrap(table, then_copy)


def refuse_loading(parameter: torch.nn.Parameter, what: str) -> None:
    """Let a parameter say which way its weights are loaded again, where its own loader would load others."""

    def refuse(load: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        raise NotLoadable(
            f'Call collective_rpc("reload_weights", kwargs={{"weights_iterator": ...}}) in the place of '
            f"model.load_weights(): {what} were laid out anew when they were loaded."
        )

    _wrap(parameter, refuse)


def _wrap(parameter: Any, around: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> None:
    load = getattr(parameter, "weight_loader", default_weight_loader)
    load = getattr(load, "_ascend_wrapped", load)

    @functools.wraps(load)
    def loader(*arguments: Any, **named: Any) -> Any:
        return around(load, arguments, named)

    loader._ascend_wrapped = load  # type: ignore[attr-defined]
    parameter.weight_loader = loader
