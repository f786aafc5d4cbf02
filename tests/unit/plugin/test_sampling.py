"""Noise drawn by the host, the race that it decides on the device, and what takes part in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

from ascend_plugin.ops import noise
from ascend_plugin.ops.noise import HostNoise
from ascend_plugin.ops.sampling import count_greater, keep_top

VOCABULARY = 1000


class HostGenerator:
    """The part of torch.Generator that counts draws, which CPU generators lack."""

    def __init__(self, seed: int) -> None:
        self.seed, self.offset = seed, 0

    def initial_seed(self) -> int:
        return self.seed

    def get_offset(self) -> int:
        return self.offset

    def set_offset(self, offset: int) -> None:
        self.offset = offset


def gumbel(rows: np.ndarray, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """The device's part of HostNoise.gumbel."""
    return torch.from_numpy(noise._noise()[rows].reshape(len(rows), -1)[:, :vocabulary])


def test_draws_depend_on_seed_and_step_alone() -> None:
    first, second, other = HostGenerator(1), HostGenerator(1), HostGenerator(2)
    draws = [HostNoise(0).rows(3, 16, {1: first})[1].tolist() for _ in range(5)]
    assert draws == [HostNoise(9).rows(1, 16, {0: second})[0].tolist() for _ in range(5)]
    assert len({tuple(draw) for draw in draws}) == 5
    assert HostNoise(0).rows(1, 16, {0: other})[0].tolist() not in draws


def test_a_discarded_token_takes_its_draw_back() -> None:
    generator, drawn = HostGenerator(7), HostNoise(0)
    drawn.rows(1, 16, {0: generator})
    before = drawn.rows(1, 16, {0: generator})
    generator.set_offset(generator.get_offset() - 4)  # as vLLM's runner does
    assert drawn.rows(1, 16, {0: generator}).tolist() == before.tolist()


def test_races_follow_the_distribution() -> None:
    """Among tokens that share a row of the table and tokens that do not, with a rare one among them."""
    logits = torch.full((VOCABULARY,), float("-inf"))
    tokens = [3, 4, 500, 999]
    chances = torch.tensor([0.6, 0.2, 0.195, 0.005])
    logits[tokens] = chances.log()
    count = 200_000
    drawn = HostNoise(1).rows(count, -(-VOCABULARY // noise.WIDTH), {})
    winners = torch.cat([(logits + gumbel(part)).argmax(dim=-1) for part in np.array_split(drawn, 100)])
    frequencies = torch.bincount(winners, minlength=VOCABULARY)[tokens] / count
    torch.testing.assert_close(float(frequencies.sum()), 1.0)
    errors = (frequencies - chances).abs() / (chances * (1 - chances) / count).sqrt()
    assert errors.max() < 5  # standard deviations; one row for all tokens of a draw would be off by hundreds


def test_noise_has_the_distribution_of_gumbel() -> None:
    table = np.sort(noise._noise(), axis=0)
    middles = -np.log(-np.log((np.arange(noise.ROWS) + 0.5) / noise.ROWS))
    inner = slice(noise.ROWS // 1000, -noise.ROWS // 1000)
    assert np.abs(table[inner] - middles[inner, None]).max() < 0.02
    assert np.isfinite(table).all()


def test_rounding_of_logits_seldom_changes_a_draw() -> None:
    """As float16 rounds logits near 16, which is what lies between the same request in two batches."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, VOCABULARY, generator=generator) * 2
    other = logits + (torch.rand(logits.shape, generator=generator) - 0.5) * 2**-7
    race = gumbel(HostNoise(3).rows(400, 16, {}))
    changed = ((logits + race).argmax(-1) != (other + race).argmax(-1)).sum()
    uniforms = torch.rand(400, 1, generator=generator)
    inverted = [(values.softmax(-1).cumsum(-1) <= uniforms).sum(-1) for values in (logits, other)]
    assert changed <= 4
    assert (inverted[0] != inverted[1]).sum() > 10 * max(int(changed), 1)  # what this replaced


@pytest.mark.parametrize("with_k", [False, True])
@pytest.mark.parametrize("with_p", [False, True])
def test_what_takes_part_is_what_upstream_leaves(with_k: bool, with_p: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(64, VOCABULARY, generator=generator) * 3
    k = torch.randint(1, 60, (64,), generator=generator, dtype=torch.int32) if with_k else None
    p = torch.rand(64, generator=generator) if with_p else None
    if with_k:
        k[:4] = VOCABULARY
    if with_p:
        p[2:8], p[8] = 1.0, 1e-6
    expected = apply_top_k_top_p_pytorch(logits.clone(), k, p)
    assert torch.equal(keep_top(logits.clone(), k, p), expected)


def test_equal_logits_at_the_end_stay_together() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    kept = keep_top(logits, torch.tensor([2], dtype=torch.int32), None)
    assert kept.isfinite().tolist() == [[True, True, True, False]]


def test_ranks_are_counted_in_float32_exactly() -> None:
    values = torch.arange(200_000, dtype=torch.float32)[None]
    assert count_greater(values, torch.tensor([[1.0]])).tolist() == [199_999]


def test_uniforms_are_for_drafts_of_seeded_requests_too() -> None:
    first = HostNoise(0).uniforms([2, 0, 3], {0: HostGenerator(1), 1: HostGenerator(2)})
    second = HostNoise(5).uniforms([2], {0: HostGenerator(1)})
    assert len(first) == 5
    assert first[:2].tolist() == second.tolist()
    assert ((first > 0) & (first < 1)).all()
