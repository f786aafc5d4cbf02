"""The host's draws and their inversion on the device."""

from __future__ import annotations

import torch

from ascend_plugin.ops.sampling import draw, seeded_uniform


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


def test_draws_depend_on_seed_and_step_alone() -> None:
    first, second, other = HostGenerator(1), HostGenerator(1), HostGenerator(2)
    draws = [seeded_uniform(first) for _ in range(5)]
    assert draws == [seeded_uniform(second) for _ in range(5)]
    assert len(set(draws)) == 5
    assert seeded_uniform(other) not in draws


def test_a_discarded_token_takes_its_draw_back() -> None:
    generator = HostGenerator(7)
    seeded_uniform(generator)
    draw_before = seeded_uniform(generator)
    generator.set_offset(generator.get_offset() - 4)  # as vLLM's runner does
    assert seeded_uniform(generator) == draw_before


def test_uniform_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), 2.0]])
    count = 20000
    uniforms = (torch.arange(count) + 0.5) / count
    tokens = draw(logits.expand(count, 4), uniforms)
    frequencies = torch.bincount(tokens, minlength=4) / count
    torch.testing.assert_close(frequencies, logits[0].softmax(-1), atol=1e-3, rtol=0)


def test_the_ends_of_the_range_are_tokens_with_probability() -> None:
    logits = torch.full((2, 50), float("-inf"))
    logits[:, 7] = logits[:, 30] = 0.0
    assert draw(logits, torch.tensor([0.0, 1 - 2**-24])).tolist() == [7, 30]
