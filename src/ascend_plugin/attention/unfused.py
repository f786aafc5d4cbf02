"""Attention composed of stock operators, for layers that no fused operator computes: a soft cap, ALiBi, sinks.

Keys and values are gathered from their pages by the block table, a piece at a time, and met with an online softmax in
float32 (Milakov and Gimelshein, arXiv:1805.02867), so that what is alive at once is bounded by SCRATCH_VALUES whatever
the context. A layer with a sliding window gathers no more blocks than the window touches.

Shapes follow from the step's lengths, and in a graph, which replays whatever the lengths are, from the batch and the
longest context alone (hence GRAPH_KEYS). What differs between the requests of one shape stays on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ascend_plugin.attention.metadata import AscendMetadata
from ascend_plugin.graphs import wrapper

KeysAndValues = tuple[torch.Tensor, torch.Tensor]

SCRATCH_VALUES = 1 << 23  # of the largest tensors, scores or gathered keys: 32 MiB each in float32
SCRATCH_TENSORS = 6  # alive at once: scores, their exponentials, keys and values as gathered and in float32
QUERY_TOKENS = 256  # of one request at a time
HIDDEN = -1e30  # finite: a row of a piece may see none of its keys, and (-inf) - (-inf) is no number
GRAPH_KEYS = 1 << 16  # gathered by one layer of a captured batch, which reads the longest context in every replay


@dataclass(frozen=True)
class Part:
    """Queries that are computed at once: B requests with S tokens each, and the blocks that hold their keys."""

    tokens: slice  # B * S
    positions: torch.Tensor  # [B, S] int32, of the queries
    blocks: torch.Tensor  # [B, W] int32
    first_key: torch.Tensor | int  # [B, 1] int32: position of the first key of blocks


class UnfusedPagedAttention:
    """One layer's attention from paged keys and values [blocks, block size, kv heads, size]."""

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_size: int,
        scale: float,
        window: int | None,
        soft_cap: float | None,
        alibi_slopes: list[float] | None,
        sinks: torch.Tensor | None = None,
        value_size: int | None = None,
    ) -> None:
        """value_size: values are the first so many numbers of keys (latent attention)."""
        self.num_heads, self.num_kv_heads, self.head_size = num_heads, num_kv_heads, head_size
        self.scale, self.window, self.soft_cap = scale, window, soft_cap
        self._slopes = None if alibi_slopes is None else torch.tensor(alibi_slopes, dtype=torch.float32)
        self.value_size = value_size or head_size
        self._sinks = sinks  # [heads], a parameter: its values come with the weights

    def reserve(self, device: torch.device) -> None:
        """Take the most memory that a step takes, for the profile run to see."""
        torch.empty(SCRATCH_TENSORS * SCRATCH_VALUES, dtype=torch.float32, device=device)

    def attend(self, query: torch.Tensor, kv_cache: KeysAndValues, metadata: AscendMetadata, out: torch.Tensor) -> None:
        """Fill out [T, heads, value size], of any dtype, from query [T, heads, size] and the cache."""
        if self._slopes is not None and self._slopes.device != query.device:
            self._slopes = self._slopes.to(query.device)
        block_size = kv_cache[0].shape[1]
        replayed = wrapper.is_recording()
        slot = ("unfused", replayed, self.window, self.num_heads, self.num_kv_heads, self.head_size)
        if slot not in metadata.shared:
            metadata.shared[slot] = self._parts(metadata, block_size, replayed)
        for part in metadata.shared[slot]:
            out[part.tokens].copy_(self._attend_part(query[part.tokens], kv_cache, part))

    # ------------------------------------------------------------------ what is computed at once

    def _parts(self, metadata: AscendMetadata, block_size: int, replayed: bool) -> list[Part]:
        """Runs of requests with as many tokens each, as many as the scratch holds a block of; of long ones, a piece."""
        block_values = block_size * max(self.num_kv_heads * self.head_size, self.num_heads)
        rows = max(1, SCRATCH_VALUES // block_values)
        parts = []
        for requests, tokens in metadata.uniform_spans:
            count = requests.stop - requests.start
            length = (tokens.stop - tokens.start) // count
            together = max(1, rows // length) if length <= QUERY_TOKENS else 1
            for row in range(0, count, together):
                end = min(row + together, count)
                chosen = slice(requests.start + row, requests.start + end)
                first = tokens.start + row * length
                for token in range(0, length, QUERY_TOKENS):
                    last = min(token + QUERY_TOKENS, length)
                    where = slice(first + token, first + token + (end - row) * (last - token))
                    parts.append(self._part(metadata, chosen, where, (token, last, length), block_size, replayed))
        return parts

    def _part(
        self,
        metadata: AscendMetadata,
        requests: slice,
        tokens: slice,
        span: tuple[int, int, int],  # first and last + 1 of each request's tokens, and how many it has in this step
        block_size: int,
        replayed: bool,
    ) -> Part:
        begin, end, length = span
        table = metadata.block_table[requests]
        offsets = torch.arange(begin - length, end - length, dtype=torch.int32, device=table.device)
        positions = metadata.seq_lens[requests].view(-1, 1) + offsets
        width = table.shape[1]
        if not replayed:
            keys = int(metadata.seq_lens_host[requests].max()) - length + end
            width = min(width, max(1, -(-keys // block_size)))
        # A window and its queries touch at most this many blocks.
        touched = width if self.window is None else -(-(self.window + end - begin - 2) // block_size) + 1
        if self.window is None or touched >= width:
            return Part(tokens, positions, table[:, :width], 0)
        oldest = (positions[:, :1] - (self.window - 1)).clamp_(min=0)
        first = torch.div(oldest, block_size, rounding_mode="floor")
        columns = first + torch.arange(touched, dtype=torch.int32, device=table.device)
        blocks = table.gather(1, columns.clamp_(max=width - 1).long())
        return Part(tokens, positions, blocks, first * block_size)

    # ------------------------------------------------------------------ computing it

    def _attend_part(self, query: torch.Tensor, kv_cache: KeysAndValues, part: Part) -> torch.Tensor:
        """[B * S, heads, size] float32."""
        requests, tokens = part.positions.shape
        shape = (requests, tokens, self.num_kv_heads, self.num_heads // self.num_kv_heads, self.head_size)
        # Heads that share keys become rows of one product: [B, kv heads, group * S, size].
        scaled = query.view(shape).permute(0, 2, 3, 1, 4).to(torch.float32) * (self.scale / (self.soft_cap or 1.0))
        rows = scaled.reshape(requests, self.num_kv_heads, -1, self.head_size)
        found = self._online_softmax(rows, kv_cache, part)
        by_head = found.view(requests, *shape[2:4], tokens, self.value_size).permute(0, 3, 1, 2, 4)
        return by_head.reshape(*query.shape[:2], self.value_size)

    def _online_softmax(self, rows: torch.Tensor, kv_cache: KeysAndValues, part: Part) -> torch.Tensor:
        """Rows' attention [B, kv heads, group * S, value size], a piece of keys at a time."""
        requests, width = part.blocks.shape
        block_size = kv_cache[0].shape[1]
        sinks = self._sinks_of(rows)
        # Values that one block adds to the largest tensor.
        block_values = block_size * max(rows.numel() // self.head_size, requests * self.num_kv_heads * self.head_size)
        step = max(1, SCRATCH_VALUES // block_values)
        if step >= width:
            scores, values = self._scores(rows, kv_cache, part, 0, width)
            if sinks is not None:
                scores = torch.cat([scores, sinks], dim=-1)
            weights = torch.softmax(scores, dim=-1)
            return torch.matmul(weights if sinks is None else weights[..., :-1], values)
        peak = rows.new_full((*rows.shape[:3], 1), HIDDEN) if sinks is None else sinks
        total = torch.zeros_like(peak) if sinks is None else torch.ones_like(peak)
        mixed = rows.new_zeros((*rows.shape[:3], self.value_size))
        for column in range(0, width, step):
            scores, values = self._scores(rows, kv_cache, part, column, min(column + step, width))
            higher = torch.maximum(peak, scores.amax(dim=-1, keepdim=True))
            fading = (peak - higher).exp_()
            weights = scores.sub_(higher).exp_()
            total = total.mul_(fading).add_(weights.sum(dim=-1, keepdim=True))
            mixed = mixed.mul_(fading).add_(torch.matmul(weights, values))
            peak = higher
        return mixed.div_(total)

    def _sinks_of(self, rows: torch.Tensor) -> torch.Tensor | None:
        """[B, kv heads, group * S, 1] float32: each row's sink."""
        if self._sinks is None:
            return None
        by_head = self._sinks.detach().to(torch.float32).view(1, self.num_kv_heads, -1, 1)
        tokens = rows.shape[2] // by_head.shape[2]
        return by_head.expand(rows.shape[0], -1, -1, tokens).reshape(*rows.shape[:3], 1)

    def _scores(
        self, rows: torch.Tensor, kv_cache: KeysAndValues, part: Part, begin: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final scores [B, kv heads, group * S, keys] of the keys in blocks begin to end, and their values."""
        requests, tokens = part.positions.shape
        block_size = kv_cache[0].shape[1]
        blocks = part.blocks[:, begin:end].reshape(-1)
        shape = (requests, -1, self.num_kv_heads, self.head_size)
        keys = kv_cache[0].index_select(0, blocks).view(shape).to(torch.float32)
        if kv_cache[1] is kv_cache[0]:
            values = keys[..., : self.value_size]
        else:
            values = kv_cache[1].index_select(0, blocks).view(shape).to(torch.float32)
        scores = torch.matmul(rows, keys.permute(0, 2, 3, 1))
        if self.soft_cap:
            scores.tanh_().mul_(self.soft_cap)
        places = torch.arange(begin * block_size, end * block_size, dtype=torch.int32, device=rows.device)
        ahead = (places + part.first_key).view(-1, 1, places.shape[0]) - part.positions.unsqueeze(-1)  # [B, S, keys]
        by_head = scores.view(requests, self.num_heads, tokens, -1)
        if self._slopes is not None:
            by_head.add_(ahead.unsqueeze(1) * self._slopes.view(-1, 1, 1))
        hidden = ahead > 0
        if self.window is not None:
            hidden = hidden | (ahead <= -self.window)
        by_head.masked_fill_(hidden.unsqueeze(1), HIDDEN)
        return scores, values.transpose(1, 2)
