"""Blocks of the KV cache in the host's memory: vLLM's offloading connector, with Ascend's copies (see pages.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch_npu
from vllm.distributed.kv_transfer.kv_connector.v1 import offloading_connector
from vllm.v1.kv_offload.base import (
    CanonicalKVCacheRef,
    CanonicalKVCaches,
    CanonicalKVCacheTensor,
    GPULoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from ascend_plugin.cache.pages import HostCopies, Pages, find_pages
from ascend_plugin.detection import DEVICE_TO_HOST, HOST_TO_DEVICE


class OffloadingConnector(offloading_connector.OffloadingConnector):
    """vLLM's connector of that name, which this class has to have too: kv_connector_module_path finds it by that."""

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        worker = self.connector_worker
        if worker is None:
            raise RuntimeError("Only a worker's connector registers caches.")
        worker._init_worker(canonical(*find_pages(worker.kv_cache_config, kv_caches)))


def canonical(pages: list[Pages], groups: list[list[int]]) -> CanonicalKVCaches:
    """As vLLM hands them from the connector to the worker."""
    refs = [[CanonicalKVCacheRef(index, pages[index].size_bytes) for index in indices] for indices in groups]
    return CanonicalKVCaches([CanonicalKVCacheTensor(each, each.size_bytes) for each in pages], refs)  # type: ignore[arg-type]  # a worker of ours reads them


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
        sizes = [chunks * blocks_per_chunk * each.size_bytes for each in pages]
        self._starts = np.cumsum([0, *sizes])[:-1]
        self._memory = HostCopies(sum(sizes))
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
        self._memory.free()

    def _submit(self, job_id: int, on_chip: GPULoadStoreSpec, chunks: np.ndarray, kind: int) -> None:
        """Queue a job's copies behind the step at hand, which may still write the blocks, and behind earlier jobs."""
        begun, done = torch_npu.npu.Event(enable_timing=True), torch_npu.npu.Event(enable_timing=True)
        self._stream.wait_stream(torch_npu.npu.current_stream())
        begun.record(self._stream)
        moved = self._memory.queue(self._copies(on_chip, chunks), kind, self._stream)
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
                    host = self._memory.address + int(self._starts[index]) + slot * pages.size_bytes
                    yield pages.address + block * pages.stride_bytes, host, pages.size_bytes
            chunk += -(-(skipped + size) // self.blocks_per_chunk)
