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
    return torch_npu.npu_format_cast(_striped(positions.to(device), window, stripes), FRACTAL_NZ)


def empty_decode_mask(rows: int, keys: int, device: torch.device) -> torch.Tensor:
    """Memory for decode_window_mask: FRACTAL_NZ, [1, keys / 16, rows, 16], both rounded up to 16."""
    shape = (1, -(-keys // NZ_COLUMNS), -(-rows // NZ_ROWS) * NZ_ROWS, NZ_COLUMNS)
    return torch_npu.npu_format_cast(torch.zeros(shape, dtype=torch.float16, device=device), FRACTAL_NZ)


def decode_window_mask(seq_lens: torch.Tensor, query_len: int, window: int, out: torch.Tensor) -> None:
    """The same for decoding R sequences with `query_len` tokens each, filled into an empty_decode_mask.

    Lengths [R] are on the device, so that the mask of a captured graph is refreshed in place. The operators take only
    masks in FRACTAL_NZ as they are: one in rows would be laid out anew by every layer.
    """
    tokens = torch.arange(query_len, dtype=torch.int32, device=out.device)
    positions = (seq_lens.view(-1, 1) - query_len + tokens).view(-1)
    positions = torch.nn.functional.pad(positions, (0, out.shape[2] - positions.shape[0]))
    torch_npu.npu_format_cast_(out, _striped(positions, window, out.shape[1]))


def _striped(positions: torch.Tensor, window: int, stripes: int) -> torch.Tensor:
    """[1, stripes, tokens, 16] fp16 of tokens at positions [tokens] int32: HIDDEN_PAGED where a key is hidden."""
    keys = torch.arange(stripes * NZ_COLUMNS, dtype=torch.int32, device=positions.device)
    ahead = keys.view(1, stripes, 1, NZ_COLUMNS) - positions.view(1, 1, -1, 1)
    return _hidden(ahead, window).to(torch.float16) * HIDDEN_PAGED


def last_token_window_mask(seq_lens: torch.Tensor, window: int, out: torch.Tensor) -> None:
    """For FusedInferAttentionScore with one token a sequence: out [R, keys] bool, True where a key is hidden.

    Lengths [R] as above; a row of padding (length 0) sees its first key, because operators take no empty row.
    """
    out.copy_(_outside_window((seq_lens - 1).clamp_(min=0).view(-1, 1), window, out.shape[1]))


def _outside_window(positions: torch.Tensor, window: int, keys: int) -> torch.Tensor:
    """[N, keys] bool: the keys that tokens at positions [N, 1] do not see."""
    return _hidden(torch.arange(keys, dtype=torch.int32, device=positions.device) - positions, window)


def _hidden(ahead: torch.Tensor, window: int) -> torch.Tensor:
    """Whether a key so many tokens ahead is hidden."""
    return (ahead > 0) | (ahead <= -window)
