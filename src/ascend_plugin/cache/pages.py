"""Where the blocks of a KV cache lie on the chip, and copies of them to and from the host.

A block leaves the chip as the bytes that its operators read. In FRACTAL_NZ (310P) that is, for keys and for values
apart, [heads * head_size / 16] stripes, each of [tokens of the block] rows of 16 float16; elsewhere a page as vLLM has
it. Nothing is converted, so what comes back is the same bit for bit, and only the same chip family can read it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from vllm.v1.kv_cache_interface import KVCacheConfig, UniformTypeKVCacheSpecs

from ascend_plugin.detection import ACL_LIBRARY, DEVICE_TO_HOST


@dataclass(frozen=True)
class Pages:
    """One tensor's part of every block: block b is `size_bytes` from `address + b * stride_bytes` on."""

    address: int
    stride_bytes: int
    size_bytes: int


def find_pages(config: KVCacheConfig, caches: dict[str, Any]) -> tuple[list[Pages], list[list[int]]]:
    """The pages of all layers, each once where layers share them, and for each cache group those of its layers.

    `caches`: a tensor or (keys, values) a layer. Raises NotImplementedError for pages that lie within one another.
    """
    found: list[Pages] = []
    groups: list[list[int]] = []
    for group in config.kv_cache_groups:
        indices = []
        for layer in group.layer_names:
            spec = group.kv_cache_spec
            if isinstance(spec, UniformTypeKVCacheSpecs):
                spec = spec.kv_cache_specs[layer]
            cache = caches[layer]
            for tensor in cache if isinstance(cache, tuple) else (cache,):
                share = spec.page_size_bytes // (2 if isinstance(cache, tuple) else 1)
                stride = tensor.shape[0] // config.num_blocks * tensor.stride(0) * tensor.element_size()
                if stride < share:
                    raise NotImplementedError(f"{layer}: pages of {share} bytes every {stride} cannot leave the chip.")
                pages = Pages(tensor.data_ptr(), stride, share)
                if pages not in found:
                    found.append(pages)
                indices.append(found.index(pages))
        groups.append(indices)
    return found, groups


class HostCopies:
    """CANN's pinned memory and copies. PyTorch's cache of pinned memory would take the next power of two."""

    def __init__(self, size_bytes: int) -> None:
        self._acl = ctypes.CDLL(ACL_LIBRARY)
        self._memory = ctypes.c_void_p()
        self._check(self._acl.aclrtMallocHost(ctypes.byref(self._memory), ctypes.c_size_t(size_bytes)), "MallocHost")
        self.address: int = self._memory.value or 0
        self.size_bytes = size_bytes

    def queue(self, copies: Iterable[tuple[int, int, int]], kind: int, stream: Any) -> int:
        """Queue copies of (address on the chip, on the host, bytes) in a torch_npu stream; how many bytes they move."""
        handle = ctypes.c_void_p(stream.npu_stream)  # asking for it sends off what torch_npu has queued
        moved = 0
        for device, host, size in copies:
            target, source = (host, device) if kind == DEVICE_TO_HOST else (device, host)
            status = self._acl.aclrtMemcpyAsync(
                ctypes.c_void_p(target),
                ctypes.c_size_t(size),
                ctypes.c_void_p(source),
                ctypes.c_size_t(size),
                kind,
                handle,
            )
            self._check(status, "MemcpyAsync")
            moved += size
        return moved

    def as_bytes(self) -> np.ndarray:
        """The memory itself, until it is freed."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.size_bytes).from_address(self.address))

    def free(self) -> None:
        if self._memory:
            self._check(self._acl.aclrtFreeHost(self._memory), "FreeHost")
            self._memory = ctypes.c_void_p()

    @staticmethod
    def _check(status: int, call: str) -> None:
        if status != 0:
            raise RuntimeError(f"aclrt{call} failed with {status}: is there room in the host's memory?")
