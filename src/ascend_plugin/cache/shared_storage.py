"""Blocks of prompts in a folder that several servers see: one computes a prompt, another goes on from it.

This stands in for vLLM's connector of that name, which saves layer by layer from within the model (not in a captured
graph), leaves out what a prompt's second chunk computes, and gives the ranks of one server the same file.

A block is a file, named by what it follows from: the tokens up to its end, pictures, adapter, salt, and which cache it
is of (`namespace`, by default the model's name; chip family, dtype, block and rank). So a longer prompt with the same
beginning finds it too. A file holds the bytes of pages.py and their hash, and appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch_npu
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from ascend_plugin import detection
from ascend_plugin.cache.pages import HostCopies, find_pages
from ascend_plugin.configuration import SHARED_FOLDER
from ascend_plugin.detection import DEVICE_TO_HOST, HOST_TO_DEVICE
from ascend_plugin.log import plugin_logger

if TYPE_CHECKING:
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

logger = plugin_logger(__name__)
NAMESPACE = "namespace"  # in kv_connector_extra_config, beside the folder
NamedBlock = tuple[str, int]  # a block's name in the folder, and where it is in the cache


@dataclass
class Transfers(KVConnectorMetadata):
    """What a step loads before it, and saves after it."""

    load: list[NamedBlock] = field(default_factory=list)
    save: list[NamedBlock] = field(default_factory=list)


@dataclass
class Prompt:
    """A request whose prompt is computed here."""

    names: list[str]
    blocks: list[int] = field(default_factory=list)
    kept: int = 0  # blocks that are in the folder, or about to be; workers leave out what is there


class ExampleConnector(KVConnectorBase_V1):
    """vLLM's name, by which kv_connector_module_path finds it."""

    _cache_hit_source = CacheHitSource.DISK

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        extra = self._kv_transfer_config.kv_connector_extra_config
        self._folder = Path(extra[SHARED_FOLDER])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._block_size = vllm_config.cache_config.block_size
        self._ranks = vllm_config.parallel_config.tensor_parallel_size
        self._root = _root(vllm_config, str(extra.get(NAMESPACE, vllm_config.model_config.model)))
        self._waiting: dict[str, tuple[list[str], int]] = {}  # asked for: names, and how many tokens are here already
        self._load: list[NamedBlock] = []
        self._prompts: dict[str, Prompt] = {}
        self._failed: set[int] = set()

    @property
    def requires_kv_delivery(self) -> bool:
        return False  # a block that was not saved is computed again

    # ------------------------------------------------------------------ in the scheduler

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        if request.prompt_token_ids is None:  # embeddings, which have no name
            return 0, False
        # Asked at every step for as long as the request waits, and a prompt's names stay.
        names, _ = self._waiting.get(request.request_id) or (self._names(request), 0)
        self._waiting[request.request_id] = names, num_computed_tokens
        if not self._kv_transfer_config.is_kv_consumer:
            return 0, False
        found = 0
        # One token at least is left to compute: its logits are what is asked for.
        for name in names[: (request.num_prompt_tokens - 1) // self._block_size]:
            if not all(self._file(name, rank).is_file() for rank in range(self._ranks)):
                break
            found += 1
        return max(0, found * self._block_size - num_computed_tokens), False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        if request.request_id not in self._waiting:
            return
        names, computed = self._waiting.pop(request.request_id)
        ids = blocks.get_block_ids()[0]
        first, last = computed // self._block_size, (computed + num_external_tokens) // self._block_size
        self._load += zip(names[first:last], ids[first:last], strict=True)
        if self._kv_transfer_config.is_kv_producer:
            self._prompts[request.request_id] = Prompt(names)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Transfers:
        transfers = Transfers(self._load)
        self._load = []
        scheduled = scheduler_output.num_scheduled_tokens
        for new in scheduler_output.scheduled_new_reqs:
            if prompt := self._prompts.get(new.req_id):
                prompt.blocks = list(new.block_ids[0])
                transfers.save += self._complete(prompt, new.num_computed_tokens + scheduled[new.req_id])
        cached = scheduler_output.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            if prompt := self._prompts.get(name):
                ids = cached.new_block_ids[index]
                if name in cached.resumed_req_ids:
                    prompt.blocks = []
                prompt.blocks += ids[0] if ids else []
                transfers.save += self._complete(prompt, cached.num_computed_tokens[index] + scheduled[name])
                if prompt.kept == len(prompt.names):
                    del self._prompts[name]
        return transfers

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._prompts.pop(request.request_id, None)
        self._waiting.pop(request.request_id, None)
        return False, None

    def _complete(self, prompt: Prompt, computed: int) -> Iterator[NamedBlock]:
        """The blocks that a step fills to the end."""
        while prompt.kept < min(computed // self._block_size, len(prompt.names)):
            yield prompt.names[prompt.kept], prompt.blocks[prompt.kept]
            prompt.kept += 1

    def _names(self, request: Request) -> list[str]:
        """Of every whole block of a prompt."""
        tokens = np.asarray(request.prompt_token_ids, dtype=np.int64)
        others = {
            "salt": request.cache_salt,
            "adapter": request.lora_request and [request.lora_request.lora_name, request.lora_request.lora_path],
            # In front of all blocks, wherever they begin: a block before a picture is then not shared either.
            "media": [[one.identifier, one.mm_position.offset] for one in request.mm_features],
        }
        state = hashlib.sha256(self._root.encode() + json.dumps(others).encode())
        names = []
        for start in range(0, len(tokens) - self._block_size + 1, self._block_size):
            state.update(tokens[start : start + self._block_size].tobytes())
            names.append(state.copy().hexdigest())
        return names

    # ------------------------------------------------------------------ in a worker

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        self._pages, groups = find_pages(self._kv_cache_config, kv_caches)
        if len(groups) != 1:  # configuration.py refuses the models that have more
            raise NotImplementedError("A cache of several groups of layers cannot be shared through a folder.")
        self._starts = np.cumsum([0, *(each.size_bytes for each in self._pages)])
        self._staged = HostCopies(int(self._starts[-1]))
        self._block = self._staged.as_bytes()
        self._rank = get_tensor_model_parallel_rank()

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        for name, block in self._transfers().load:
            try:
                self._block[:] = read(self._file(name, self._rank), len(self._block))
            except (OSError, ValueError, SafetensorError) as error:
                logger.warning("Block %d is not taken from %s: %s.", block, self._folder, error)
                self._failed.add(block)
                continue
            self._copy(block, HOST_TO_DEVICE)

    def wait_for_layer_load(self, layer_name: str) -> None:
        pass  # all are there before the step begins

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        pass  # wait_for_save saves whole blocks

    def wait_for_save(self) -> None:
        for name, block in self._transfers().save:
            file = self._file(name, self._rank)
            if file.is_file():
                continue
            self._copy(block, DEVICE_TO_HOST)
            try:
                write(file, self._block)
            except OSError as error:
                logger.warning("Block %d is not saved in %s: %s.", block, self._folder, error)

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._failed = self._failed, set()
        return failed

    def shutdown(self) -> None:
        if hasattr(self, "_staged"):
            self._staged.free()

    def _transfers(self) -> Transfers:
        transfers = self._get_connector_metadata()
        if not isinstance(transfers, Transfers):
            raise TypeError(f"{type(transfers).__name__} is another connector's.")
        return transfers

    def _copy(self, block: int, kind: int) -> None:
        """Between a block on the chip and the staging memory, behind the step at hand; done when this returns."""
        stream = torch_npu.npu.current_stream()
        copies = (
            (each.address + block * each.stride_bytes, self._staged.address + int(start), each.size_bytes)
            for each, start in zip(self._pages, self._starts, strict=False)
        )
        self._staged.queue(copies, kind, stream)
        stream.synchronize()

    def _file(self, name: str, rank: int) -> Path:
        return self._folder / name[:2] / f"{name}-{rank}.safetensors"


def _root(config: VllmConfig, namespace: str) -> str:
    """What makes the blocks of two caches unlike, whatever the tokens."""
    chip = detection.current_chip()
    return json.dumps(
        {
            "namespace": namespace,
            "form": [chip.kv_cache_format, str(config.model_config.dtype), config.cache_config.block_size],
            "ranks": config.parallel_config.tensor_parallel_size,
        },
        sort_keys=True,
    )


def write(file: Path, block: np.ndarray) -> None:
    """A block with its hash: whole, or not at all. Raises OSError."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        save_file({"block": block}, part, {"sha256": hashlib.sha256(block.data).hexdigest()})
        part.replace(file)
    except SafetensorError as error:  # it has no class of its own for a full disk
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            part.unlink()


def read(file: Path, size_bytes: int) -> np.ndarray:
    """Raises OSError, SafetensorError or ValueError for a file that is not what `write` has written."""
    with safe_open(file, "np") as opened:
        block: np.ndarray = opened.get_tensor("block")
        wanted = (opened.metadata() or {}).get("sha256")
    if block.dtype != np.uint8 or block.shape != (size_bytes,):
        raise ValueError(f"{file.name} has {block.dtype}{list(block.shape)} where {size_bytes} bytes are wanted")
    if hashlib.sha256(block.data).hexdigest() != wanted:
        raise ValueError(f"{file.name} is not what was saved: its bytes have another hash")
    return block
