"""Sleep mode: a model's memory given back to its chip while nobody asks it anything.

Every storage of weights and of the KV cache is taken from all tensors that lie on it, and given a new one on waking.
Addresses change, so graphs are dropped before and captured anew after. This asks nothing of the runtime but memory:
aclrtReserveMemAddress, with which addresses could stay, is documented for A2 and later chips only.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch_npu
from vllm.device_allocator.sleep_mode_backend import SleepModeBackend, SleepModeBackendFactory

from ascend_plugin.configuration import SLEEP_BACKEND
from ascend_plugin.detection import ACL_LIBRARY, DEVICE_TO_HOST, HOST_TO_DEVICE
from ascend_plugin.log import plugin_logger
from ascend_plugin.ops.formats import ND, zero_memory

if TYPE_CHECKING:
    from ascend_plugin.runner.model_runner import AscendModelRunner

logger = plugin_logger(__name__)

HOLDERS = ("ascend_plugin.", "vllm.model_executor.")  # whose objects are looked into for tensors of a layer


def register() -> None:
    """Make the backend known to vLLM under its name. Can be repeated."""
    with suppress(ValueError):  # known already
        SleepModeBackendFactory.register_backend(SLEEP_BACKEND, __name__, AscendSleepBackend.__name__)


class AscendSleepBackend(SleepModeBackend):
    """vLLM's backend of that name. It learns of its runner from the worker, which vLLM's factory does not pass on."""

    def __init__(self) -> None:
        super().__init__()
        self._runner: AscendModelRunner | None = None
        self._asleep: dict[str, list[SleepingStorage]] = {}

    def attach(self, runner: AscendModelRunner) -> None:
        self._runner = runner

    def suspend(self, level: int = 1) -> None:
        """Free weights and the KV cache; level 1 keeps weights in the host's memory, level 2 forgets them.

        At both levels the host keeps what no checkpoint restores: buffers, what layers made of their weights, and the
        weights of a drafter.
        """
        runner = self._runner_at_rest()
        self._state = "SUSPENDED"
        runner.drop_graphs()
        cache = storages(tensors_in(runner.kv_caches))
        kept = storages(tensors_of_models(runner.models())) - cache
        lost = storages(runner.get_model().parameters()) - cache if level == 2 else set()
        with _all_tensors() as aliases:
            self._lose_cache(cache, aliases)
            if "weights" not in self._asleep:
                self._asleep["weights"] = [
                    put_to_sleep(aliases[each], keep=each not in lost) for each in (kept | lost) & aliases.keys()
                ]
        self._give_back()

    def discard(self, tags: tuple[str, ...]) -> None:
        """Free the KV cache alone. Raises ValueError for another tag: weights are not lost outside level 2."""
        if set(tags) - {"kv_cache"}:
            raise ValueError(f"Discard kv_cache only: {', '.join(tags)} was asked for, and nothing restores weights.")
        runner = self._runner_at_rest()
        self._state = "SUSPENDED"
        runner.drop_graphs()
        cache = storages(tensors_in(runner.kv_caches))
        with _all_tensors() as aliases:
            self._lose_cache(cache, aliases)
        self._give_back()

    def _lose_cache(self, cache: set[int], aliases: dict[int, list[torch.Tensor]]) -> None:
        """Once: of a cache that sleeps there is nothing to find, and an empty record would never wake it."""
        if "kv_cache" not in self._asleep:
            self._asleep["kv_cache"] = [put_to_sleep(aliases[each], keep=False) for each in cache & aliases.keys()]

    def resume(self, tags: list[str] | None = None) -> None:
        """Give memory to what sleeps under these tags (None: all), and capture graphs once nothing sleeps."""
        self._state = "RESUMING"
        torch_npu.npu.synchronize()
        for tag in tags or list(self._asleep):
            for storage in self._asleep.pop(tag, []):
                storage.wake()
        if self._asleep:
            self._state = "SUSPENDED"
            return
        self._held_runner().capture_again()
        self._state = "RUNNING"

    @classmethod
    def preserves_communicators(cls) -> bool:
        return True  # their buffers are HCCL's, which nothing here touches

    def _held_runner(self) -> AscendModelRunner:
        if self._runner is None:
            raise RuntimeError("This sleep-mode backend belongs to AscendWorker, which attaches its model runner.")
        return self._runner

    def _runner_at_rest(self) -> AscendModelRunner:
        """Once nothing runs that reads a graph's memory or writes what is about to be copied."""
        torch_npu.npu.synchronize()
        return self._held_runner()

    @staticmethod
    def _give_back() -> None:
        torch_npu.npu.synchronize()
        torch_npu.npu.empty_cache()


@dataclass
class Alias:
    """A tensor on a storage, and where it lies there."""

    tensor: torch.Tensor
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any  # an int, which torch calls "int | SymInt"

    def on(self, whole: torch.Tensor) -> torch.Tensor:
        """The same place of another storage."""
        return whole.flatten().view(self.tensor.dtype).as_strided(self.size, self.stride, self.offset)


@dataclass
class SleepingStorage:
    """What a storage was: its tensors, its format, and its bytes on the host or None."""

    aliases: list[Alias]
    dtype: torch.dtype
    device: torch.device
    format: int
    size_bytes: int
    content: torch.Tensor | None

    def wake(self) -> None:
        """Raises torch.OutOfMemoryError where another process has taken the memory."""
        whole = self._allocate()
        if self.content is None:
            zero_memory(whole)
        else:
            copy_bytes(whole.data_ptr(), self.content.data_ptr(), self.size_bytes, HOST_TO_DEVICE)
        for alias in self.aliases:
            alias.tensor.data = whole if self.format != ND or self.is_whole(alias) else alias.on(whole)
        self.content = None

    def is_whole(self, alias: Alias) -> bool:
        """Whether a tensor begins and ends with the storage, so that it can stand for it."""
        tensor, size_bytes = alias.tensor, alias.size.numel() * alias.tensor.element_size()
        ordered = torch.empty(alias.size, device="meta").stride() == alias.stride
        return tensor.dtype == self.dtype and ordered and alias.offset == 0 and size_bytes == self.size_bytes

    def _allocate(self) -> torch.Tensor:
        """A tensor of the shape that the first one had: torch_npu remembers it with the storage, and reads it there."""
        whole = next(filter(self.is_whole, self.aliases), None)
        if self.format != ND:
            shape = self.aliases[0].size
            return torch_npu.empty_with_format(shape, dtype=self.dtype, device=self.device, acl_format=self.format)
        if whole is not None:
            return torch.empty(whole.size, dtype=self.dtype, device=self.device)
        return torch.empty(self.size_bytes // self.dtype.itemsize, dtype=self.dtype, device=self.device)


def put_to_sleep(tensors: list[torch.Tensor], keep: bool) -> SleepingStorage:
    """Take a storage from all tensors on it, so that its memory is free; keep: its bytes go to the host.

    Not to pinned memory, of which PyTorch's cache takes the next power of two and would keep it after waking.
    """
    first = tensors[0]
    form = int(torch_npu.get_npu_format(first))
    form = form if form not in BASE_FORMATS else ND
    storage = first.untyped_storage()
    content = None
    if keep:
        content = torch.empty(storage.nbytes(), dtype=torch.uint8)
        copy_bytes(content.data_ptr(), storage.data_ptr(), storage.nbytes(), DEVICE_TO_HOST)
    aliases = [Alias(each, each.size(), each.stride(), each.storage_offset()) for each in tensors]
    asleep = SleepingStorage(aliases, first.dtype, first.device, form, storage.nbytes(), content)
    for tensor in tensors:
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return asleep


BASE_FORMATS = (-1, 0, 1, 2, 27, 30)  # undefined, NCHW, NHWC, ND, NDHWC, NCDHW: those without a layout of their own


def copy_bytes(target: int, source: int, size_bytes: int, kind: int) -> None:
    """Copy memory by address, whatever its format, and wait for it; torch copies a private format by converting it.

    Raises RuntimeError with CANN's code.
    """
    size = ctypes.c_size_t(size_bytes)
    acl = ctypes.CDLL(ACL_LIBRARY)
    status = acl.aclrtMemcpy(ctypes.c_void_p(target), size, ctypes.c_void_p(source), size, kind)
    if status != 0:
        raise RuntimeError(f"aclrtMemcpy of {size_bytes} bytes failed with {status}.")


# ------------------------------------------------------------------ finding tensors


def storages(tensors: Iterable[torch.Tensor]) -> set[int]:
    """The device storages that tensors lie on, by the address of torch's object for each."""
    return {key for tensor in tensors if (key := _storage(tensor)) is not None}


def _storage(tensor: torch.Tensor) -> int | None:
    if tensor.device.type != "npu":
        return None
    storage = tensor.untyped_storage()
    return storage._cdata if storage.nbytes() else None


class _all_tensors:
    """The tensors of this process by storage, which garbage collection knows: an alias that is missed would stay.

    As a context, so that no reference to them outlives it.
    """

    def __enter__(self) -> dict[int, list[torch.Tensor]]:
        gc.unfreeze()  # what was frozen at start-up is not listed
        self._found: dict[int, list[torch.Tensor]] = {}
        for each in gc.get_objects():
            if issubclass(type(each), torch.Tensor) and (storage := _storage(each)) is not None:
                self._found.setdefault(storage, []).append(each)
        return self._found

    def __exit__(self, *error: Any) -> None:
        self._found.clear()
        gc.collect()
        gc.freeze()


def tensors_of_models(models: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    """What modules hold: parameters, buffers, and what they and their methods of quantization keep beside."""
    seen: set[int] = set()
    for model in models:
        for module in model.modules():
            seen.add(id(module))
            yield from _tensors_in([module._parameters, module._buffers, vars(module)], seen)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in containers."""
    return _tensors_in([value], set())


def _tensors_in(values: list[Any], seen: set[int]) -> Iterator[torch.Tensor]:
    while values:
        value = values.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, torch.nn.Module) or id(value) in seen:
            continue
        elif isinstance(value, list | tuple | set | frozenset):
            seen.add(id(value))
            values.extend(value)
        elif isinstance(value, dict):
            seen.add(id(value))
            values.extend(value.values())
        elif isinstance(value, partial):
            values.extend((value.args, value.keywords))
        elif type(value).__module__.startswith(HOLDERS) and hasattr(value, "__dict__"):
            seen.add(id(value))
            values.append(vars(value))
