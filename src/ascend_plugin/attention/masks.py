"""Causal masks of a fixed size, which operators apply blockwise to any context, and the mask of a sliding window."""

from __future__ import annotations

from functools import cache

import torch
import torch_npu

from ascend_plugin.ops.formats import FRACTAL_NZ, NZ_COLUMNS, NZ_ROWS, nz_from_nd

COMPRESSED_SIZE = 2048
# What op-plugin's own tests of the two operators add to a hidden score.
HIDDEN_PREFILL = -60000.0
HIDDEN_PAGED = -10000.0


def causal_pattern(hidden: float) -> torch.Tensor:
    """[2048, 2048] fp16 on the host: 0 where a query sees a key, `hidden` above the diagonal."""
    return torch.full((COMPRESSED_SIZE, COMPRESSED_SIZE), hidden, dtype=torch.float16).triu_(1)


@cache
def compressed_prefill_mask(device: torch.device) -> torch.Tensor:
    """For _npu_flash_attention_v3: FRACTAL_NZ, [1, 128, 2048, 16]."""
    return torch_npu.npu_format_cast(nz_from_nd(causal_pattern(HIDDEN_PREFILL)).to(device), FRACTAL_NZ)


@cache
def compressed_paged_mask(device: torch.device) -> torch.Tensor:
    """For _npu_paged_attention_splitfuse_v2: ND, [2048, 2048]."""
    return causal_pattern(HIDDEN_PAGED).to(device)


def effective_window(kv_cache_spec: object, longest: int) -> int | None:
    """The sliding window of a KV cache group in tokens, None where there is none or no sequence outgrows it."""
    window = getattr(kv_cache_spec, "sliding_window", None)
    return window if window is not None and window < longest else None


def window_mask(query_lens: torch.Tensor, seq_lens: torch.Tensor, window: int, device: torch.device) -> torch.Tensor:
    """For _npu_paged_attention_splitfuse: FRACTAL_NZ, [1, keys / 16, tokens, 16], tokens rounded up to 16.

    A token sees itself and the `window` - 1 keys before it. Lengths [R] are on the host and count as in AscendMetadata.
    """
    ends = query_lens.cumsum(0)
    tokens = int(ends[-1])
    owners = torch.repeat_interleave(query_lens.long())
    positions = torch.zeros(-(-tokens // NZ_ROWS) * NZ_ROWS, dtype=torch.int32)
    positions[:tokens] = torch.arange(tokens) + (seq_lens - ends)[owners]
    stripes = -(-int(seq_lens.max()) // NZ_COLUMNS)
    keys = torch.arange(stripes * NZ_COLUMNS, dtype=torch.int32, device=device).view(1, stripes, 1, NZ_COLUMNS)
    ahead = keys - positions.to(device).view(1, 1, -1, 1)
    hidden = (ahead > 0) | (ahead <= -window)
    return torch_npu.npu_format_cast(hidden.to(torch.float16) * HIDDEN_PAGED, FRACTAL_NZ)


def decode_window_mask(seq_lens: torch.Tensor, query_len: int, window: int, out: torch.Tensor) -> None:
    """The same for decoding R sequences with `query_len` tokens each: ND, filled into out [R * query_len, keys].

    Lengths [R] are on the device, so that the mask of a captured graph is refreshed in place.
    """
    tokens = torch.arange(query_len, dtype=torch.int32, device=out.device)
    positions = seq_lens.view(-1, 1) - query_len + tokens
    out.copy_(_outside_window(positions.view(-1, 1), window, out.shape[1])).mul_(HIDDEN_PAGED)


def last_token_window_mask(seq_lens: torch.Tensor, window: int, out: torch.Tensor) -> None:
    """For FusedInferAttentionScore with one token a sequence: out [R, keys] bool, True where a key is hidden.

    Lengths [R] as above; a row of padding (length 0) sees its first key, because operators take no empty row.
    """
    out.copy_(_outside_window((seq_lens - 1).clamp_(min=0).view(-1, 1), window, out.shape[1]))


def _outside_window(positions: torch.Tensor, window: int, keys: int) -> torch.Tensor:
    """[N, keys] bool: the keys that tokens at positions [N, 1] do not see."""
    ahead = torch.arange(keys, dtype=torch.int32, device=positions.device) - positions
    return (ahead > 0) | (ahead <= -window)
