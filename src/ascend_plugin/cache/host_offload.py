"""Blocks of the KV cache in the host's memory: vLLM's offloading connector, with Ascend's copies.

A block leaves the chip as the bytes that its operators read. In FRACTAL_NZ (310P) that is, for keys and for values
apart, [heads * head_size / 16] stripes, each of [tokens of the block] rows of 16 float16; elsewhere a page as vLLM has
it. Nothing is converted, so what comes back is the same bit for bit, and only the same chip family can read it.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch_npu
from vllm.distributed.kv_transfer.kv_connector.v1 import offloading_connector
from vllm.v1.kv_cache_interface import KVCacheConfig, UniformTypeKVCacheSpecs
from vllm.v1.kv_offload.base import (
    CanonicalKVCacheRef,
    CanonicalKVCaches,
    CanonicalKVCacheTensor,
    GPULoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from ascend_plugin.detection import ACL_LIBRARY, DEVICE_TO_HOST, HOST_TO_DEVICE


@dataclass(frozen=True)
class Pages:
    """Where the blocks of a cache lie on the chip: block b is `size_bytes` from `address + b * stride_bytes` on."""

    address: int
    stride_bytes: int
    size_bytes: int


class OffloadingConnector(offloading_connector.OffloadingConnector):
    """vLLM's connector of that name, which this class has to have too: kv_connector_module_path finds it by that."""

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        worker = self.connector_worker
        if worker is None:
            raise RuntimeError("Only a worker's connector registers caches.")
        worker._init_worker(find_pages(worker.kv_cache_config, kv_caches))


def find_pages(config: KVCacheConfig, caches: dict[str, Any]) -> CanonicalKVCaches:
    """The pages of every layer, each named once where layers share them. caches: a tensor or (keys, values) a layer.

    Raises NotImplementedError for pages that lie within one another.
    """
    found: list[Pages] = []
    groups = []
    for group in config.kv_cache_groups:
        refs = []
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
                refs.append(CanonicalKVCacheRef(tensor_idx=found.index(pages), page_size_bytes=share))
        groups.append(refs)
    return CanonicalKVCaches([CanonicalKVCacheTensor(pages, pages.size_bytes) for pages in found], groups)  # type: ignore[arg-type]  # a worker of ours reads them


class AscendOffloadingSpec(CPUOffloadingSpec):
    """vLLM's bookkeeping of blocks in the host's memory, with a worker of ours."""

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        if self._worker is None:
            pages = [each.tensor for each in kv_caches.tensors]
            groups = [[ref.tensor_idx for ref in refs] for refs in kv_caches.group_data_refs]
            self._worker = HostBlocks(pages, groups, self.num_chunks, self.blocks_per_chunk)  # type: ignore[assignment, arg-type]
        return self._worker  # type: ignore[return-value]


@dataclass
class Transfer:
    """Copies of one job, done once `done` has happened."""

    job_id: int
    begun: Any
    done: Any
    size_bytes: int


class HostBlocks(OffloadingWorker):
    """Chunks of `blocks_per_chunk` blocks in pinned memory, and the copies between them and the chip, in order."""

    def __init__(self, pages: list[Pages], groups: list[list[int]], chunks: int, blocks_per_chunk: int) -> None:
        self.pages = pages
        self.groups = groups
        self.blocks_per_chunk = blocks_per_chunk
        self._acl = ctypes.CDLL(ACL_LIBRARY)
        sizes = [chunks * blocks_per_chunk * each.size_bytes for each in pages]
        self._starts = np.cumsum([0, *sizes])[:-1]
        # Of CANN itself: PyTorch's cache of pinned memory takes the next power of two.
        self._memory = ctypes.c_void_p()
        self._check(
            self._acl.aclrtMallocHost(ctypes.byref(self._memory), ctypes.c_size_t(sum(sizes))), "aclrtMallocHost"
        )
        self._stream = torch_npu.npu.Stream()
        self._transfers: deque[Transfer] = deque()

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: Any) -> bool:
        self._submit(job_id, src_spec, dst_spec.block_ids, DEVICE_TO_HOST)
        return True

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: GPULoadStoreSpec, expedited: bool = False) -> bool:
        self._submit(job_id, dst_spec, src_spec.block_ids, HOST_TO_DEVICE)
        return True

    def get_finished(self) -> list[TransferResult]:
        finished = []
        while self._transfers and self._transfers[0].done.query():
            transfer = self._transfers.popleft()
            seconds = transfer.begun.elapsed_time(transfer.done) / 1000
            finished.append(TransferResult(transfer.job_id, True, transfer.size_bytes, seconds))
        return finished

    def wait(self, job_ids: set[int]) -> None:
        for transfer in self._transfers:
            if transfer.job_id in job_ids:
                transfer.done.synchronize()

    def shutdown(self) -> None:
        self._stream.synchronize()
        self._transfers.clear()
        if self._memory:
            self._check(self._acl.aclrtFreeHost(self._memory), "aclrtFreeHost")
            self._memory = ctypes.c_void_p()

    def _submit(self, job_id: int, on_chip: GPULoadStoreSpec, chunks: np.ndarray, kind: int) -> None:
        """Queue a job's copies behind the step at hand, which may still write the blocks, and behind earlier jobs."""
        begun, done = torch_npu.npu.Event(enable_timing=True), torch_npu.npu.Event(enable_timing=True)
        self._stream.wait_stream(torch_npu.npu.current_stream())
        begun.record(self._stream)
        stream = ctypes.c_void_p(self._stream.npu_stream)  # asking for it sends off what torch_npu has queued
        moved = 0
        for device, host, size in self._copies(on_chip, chunks):
            target, source = (host, device) if kind == DEVICE_TO_HOST else (device, host)
            status = self._acl.aclrtMemcpyAsync(
                ctypes.c_void_p(target),
                ctypes.c_size_t(size),
                ctypes.c_void_p(source),
                ctypes.c_size_t(size),
                kind,
                stream,
            )
            self._check(status, "aclrtMemcpyAsync")
            moved += size
        done.record(self._stream)
        self._transfers.append(Transfer(job_id, begun, done, moved))

    def _copies(self, on_chip: GPULoadStoreSpec, chunks: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(address on the chip, on the host, bytes) of each page; the first chunk of a group may begin before it."""
        blocks, chunk = iter(on_chip.block_ids), 0
        for indices, size, first in zip(self.groups, on_chip.group_sizes, on_chip.block_indices, strict=True):
            if not size:
                continue
            skipped = first % self.blocks_per_chunk
            for place in range(skipped, skipped + size):
                block = int(next(blocks))
                within = chunks[chunk + place // self.blocks_per_chunk] * self.blocks_per_chunk
                slot = int(within) + place % self.blocks_per_chunk
                for index in dict.fromkeys(indices):
                    pages = self.pages[index]
                    host = self._memory.value + int(self._starts[index]) + slot * pages.size_bytes  # type: ignore[operator]
                    yield pages.address + block * pages.stride_bytes, host, pages.size_bytes
            chunk += -(-(skipped + size) // self.blocks_per_chunk)

    @staticmethod
    def _check(status: int, call: str) -> None:
        if status != 0:
            raise RuntimeError(f"{call} failed with {status}: is there room in the host's memory?")
