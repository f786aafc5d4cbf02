"""KV caches as (key, value) pairs in the form that each chip's operators read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from math import prod

import torch
from vllm.v1.kv_cache_interface import (
    AttentionSpec,
    KVCacheConfig,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    UniformTypeKVCacheSpecs,
)

from ascend_plugin.attention.paged_nz import allocate_cache, allocate_plain_cache

Pair = tuple[torch.Tensor, torch.Tensor]
PageShape = tuple[int, int, int, int]


def _spec_of(group_spec: KVCacheSpec, layer: str) -> KVCacheSpec:
    return group_spec.kv_cache_specs[layer] if isinstance(group_spec, UniformTypeKVCacheSpecs) else group_spec


def allocate_nz(
    config: KVCacheConfig, kernel_block_sizes: list[int], unfused: Collection[str], device: torch.device
) -> dict[str, Pair | torch.Tensor]:
    """Allocate every layer's cache outside vLLM's one backing buffer: attention's in FRACTAL_NZ, states as plain pages.

    `unfused` names the attention layers that gather from plain pages (see attention/unfused.py).

    A private format belongs to a whole tensor, so its pages cannot be views of a shared buffer. Layers that vLLM places
    at the same address (groups overlay each other, a block being owned by one at a time) share one allocation, but
    keys and values cannot share it with recurrent states: a hybrid model takes twice what vLLM accounts for (see
    accounted_share). Raises NotImplementedError for any other kind of state, and for attention layers of both kinds.
    """

    def states(shape: PageShape) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int8, device=device)

    attention = {
        layer
        for group in config.kv_cache_groups
        for layer in group.layer_names
        if has_keys_and_values(_spec_of(group.kv_cache_spec, layer))
    }
    if (gathered := attention & set(unfused)) and gathered != attention:
        raise NotImplementedError("Some layers of this model cap their scores and others do not: it does not run here.")
    pages: Callable[[int, int, int, int, torch.device], torch.Tensor]
    pages = allocate_plain_cache if gathered else allocate_cache

    def keys_and_values(shape: PageShape) -> Pair:
        return pages(*shape, device), pages(*shape, device)

    def latents(shape: PageShape) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float16, device=device)

    caches: dict[str, Pair | torch.Tensor] = {}
    by_address: dict[tuple[int, PageShape], Pair | torch.Tensor] = {}
    allocate: Callable[[PageShape], Pair | torch.Tensor]
    for tensor in config.kv_cache_tensors:
        group_index, group = next(
            (index, group)
            for index, group in enumerate(config.kv_cache_groups)
            if tensor.layers[0] in group.layer_names
        )
        for position, layer in enumerate(tensor.layers):
            spec = _spec_of(group.kv_cache_spec, layer)
            blocks = config.num_blocks_of(tensor)
            if isinstance(spec, MambaSpec):
                shape = (blocks, 1, 1, spec.page_size_bytes)  # as MambaBase.bind_kv_cache takes it
                allocate = states
            elif isinstance(spec, MLAAttentionSpec):
                block_size = kernel_block_sizes[group_index]
                shape = (blocks * (spec.block_size // block_size), 1, block_size, spec.head_size)
                allocate = latents
            elif isinstance(spec, AttentionSpec):
                block_size = kernel_block_sizes[group_index]
                blocks *= spec.block_size // block_size
                shape = (blocks, block_size, spec.num_kv_heads, spec.head_size)
                allocate = keys_and_values
            else:
                raise NotImplementedError(f"{layer} keeps {type(spec).__name__} state, which has no NZ form yet.")
            address = (tensor.offset + position * tensor.layer_stride, shape)
            if address not in by_address:
                by_address[address] = allocate(shape)
            caches[layer] = by_address[address]
    return caches


def has_keys_and_values(spec: KVCacheSpec) -> bool:
    """Whether a layer's pages hold keys and values; those of latent attention hold one vector a token."""
    return isinstance(spec, AttentionSpec) and not isinstance(spec, MLAAttentionSpec)


def accounted_share(specs: Iterable[KVCacheSpec]) -> float:
    """Share of the memory taken by allocate_nz that vLLM accounts for: half where states lie beside attention."""
    kinds = {isinstance(spec, MambaSpec) for spec in specs}
    return 1 / len(kinds) if kinds else 1.0


def split_pages(cache: torch.Tensor) -> Pair:
    """View vLLM's [blocks, heads, tokens, key | value] pages as half-pages: keys in the even ones, values in the odd.

    Operators want keys and values apart and contiguous; vLLM wants a block to be one page. With block b's keys in
    half-page 2b of the key view, and its values in half-page 2b of the value view (which starts half a page later),
    both have what they want, and block tables and slots only count double (see fused_infer's builder).
    """
    blocks, heads, tokens, width = cache.shape
    half = tokens * heads * (width // 2)
    if cache.stride(0) != 2 * half:
        raise NotImplementedError("KV cache pages with padding cannot be split into keys and values.")
    shape = (2 * blocks - 1, tokens, heads, width // 2)
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(4))
    offset = cache.storage_offset()
    return cache.as_strided(shape, strides, offset), cache.as_strided(shape, strides, offset + half)


def zero_blocks(caches: Iterable[torch.Tensor | Pair], block_ids: list[int], num_blocks: int) -> None:
    """Set the given manager blocks to zero in every layer (vLLM asks for it where stale state could be read)."""
    if not block_ids:
        return
    seen: set[int] = set()
    for cache in caches:
        for tensor in cache if isinstance(cache, tuple) else (cache,):
            if tensor.data_ptr() in seen:
                continue
            seen.add(tensor.data_ptr())
            ratio = tensor.shape[0] // num_blocks
            index = torch.tensor([block * ratio + part for block in block_ids for part in range(ratio)])
            tensor[index.to(tensor.device, non_blocking=True)] = 0
