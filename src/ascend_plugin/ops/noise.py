"""Random numbers for chips that draw none themselves: a table of noise on the device, read where the host says.

A draw is a race: the token with the largest logit + Gumbel noise wins (Gumbel, 1954; vLLM divides probabilities by
exponential noise, which is the same). Rounding of logits changes a race only where two tokens are about to tie, so that
a seeded request gets its tokens in any batch; inverting the cumulated distribution, whose every token shifts all behind
it, does not have that property.

Noise for a whole vocabulary is too much to send in every step. The table has ROWS rows of WIDTH numbers; a draw takes
one row for each WIDTH tokens, start + i * stride, of which the host draws start and stride. A token's chance is right
to about 1 in ROWS, and so are tokens' chances relative to one another.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

ROWS = 1 << 17
WIDTH = 64  # 256 bytes: what a gather moves at a time
GENERATOR_STEP = 4  # how far vLLM's runner moves a generator back when it discards a token (_bookkeeping_sync)
TABLE_SEED = 20261128  # any; the table is the same in every process, so that a seed means the same


class HostNoise:
    """The host's draws, and the table on one device that they point into."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def gumbel(
        self, batch: int, vocabulary: int, generators: dict[int, torch.Generator], device: torch.device
    ) -> torch.Tensor:
        """[batch, vocabulary] fp32; a seeded request's depends on its seed and step alone."""
        blocks = -(-vocabulary // WIDTH)
        table = _table(device)
        rows = torch.from_numpy(self.rows(batch, blocks, generators)).pin_memory().to(device, non_blocking=True)
        return table.index_select(0, rows.view(-1)).view(batch, blocks * WIDTH)[:, :vocabulary]

    def rows(self, batch: int, blocks: int, generators: dict[int, torch.Generator]) -> np.ndarray:
        """[batch, blocks] int32: the table's row for each WIDTH tokens."""
        draws = self._random.integers(0, ROWS, (batch, 2))
        for row, generator in generators.items():
            draws[row] = _philox(generator).integers(0, ROWS, 2)
        start, stride = draws[:, :1], draws[:, 1:] | 1
        return ((start + stride * np.arange(blocks)) % ROWS).astype(np.int32)

    def uniforms(self, counts: list[int], generators: dict[int, torch.Generator]) -> np.ndarray:
        """[sum of counts] fp32 above 0 and below 1, counts[i] of them for request i; seeded ones as above."""
        drawn = self._random.random(sum(counts), dtype=np.float32)
        ends = np.cumsum(counts)
        for row, generator in generators.items():
            if counts[row]:
                drawn[ends[row] - counts[row] : ends[row]] = _philox(generator).random(counts[row], dtype=np.float32)
        return np.clip(drawn, np.float32(2**-25), np.float32(1 - 2**-24))


def _philox(generator: torch.Generator) -> np.random.Generator:
    """Random numbers of one draw of a request, whose offset counts the draws; reads and writes host state only."""
    offset = generator.get_offset()
    generator.set_offset(offset + GENERATOR_STEP)
    return np.random.Generator(np.random.Philox(key=generator.initial_seed() % 2**64, counter=offset))


@lru_cache(maxsize=4)
def _table(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(_noise()).to(device)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """[ROWS, WIDTH] fp32 Gumbel noise: in each column one number of every ROWS-th part of the distribution."""
    random = np.random.default_rng(TABLE_SEED)
    parts = random.permuted(np.tile(np.arange(ROWS, dtype=np.int32), (WIDTH, 1)), axis=1)
    quantiles = np.clip((parts + random.random((WIDTH, ROWS))) / ROWS, 2.0**-60, 1 - 2.0**-53)
    return np.ascontiguousarray((-np.log(-np.log(quantiles))).T.astype(np.float32))
