"""State-space models over chunks against the recurrence token by token, in float64."""

from __future__ import annotations

import pytest
import torch

from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops import state_space

LENGTHS = [1, 64, 65, 130, 7]
HEADS, GROUPS, SIZE, NUMBERS = 4, 2, 8, 16


def inputs(channels: tuple[int, ...], groups: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tokens = sum(LENGTHS)
    return {
        "x": draw(tokens, *channels),
        "dt": torch.nn.functional.softplus(draw(tokens, channels[0])),
        "b": draw(tokens, *groups, NUMBERS),
        "c": draw(tokens, *groups, NUMBERS),
        "state": draw(len(LENGTHS), *channels, NUMBERS),
    }


@pytest.mark.parametrize("kind", ["heads", "channels"])
def test_chunks_agree_with_single_steps(kind: str) -> None:
    heads = kind == "heads"
    given = inputs((HEADS, SIZE) if heads else (SIZE,), (GROUPS,) if heads else ())
    decay = -torch.rand(HEADS if heads else (SIZE, NUMBERS), generator=torch.Generator().manual_seed(1))
    chunked, step = (
        (state_space.heads_chunked, state_space.heads_step)
        if heads
        else (state_space.channels_chunked, state_space.channels_step)
    )
    plan = rule.plan_chunks(LENGTHS, kernel=4, device=torch.device("cpu"))
    found, after = chunked(given["x"], given["dt"], decay, given["b"], given["c"], given["state"], plan)
    start = 0
    for sequence, length in enumerate(LENGTHS):
        state = given["state"][sequence : sequence + 1].double()
        for token in range(start, start + length):
            one = slice(token, token + 1)
            parts = (given[name][one].double() for name in ("x", "dt", "b", "c"))
            x, dt, b, c = parts
            expected, state = step(x, dt, decay.double(), b, c, state)
            torch.testing.assert_close(found[one].double(), expected, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(after[sequence : sequence + 1].double(), state, atol=2e-4, rtol=2e-4)
        start += length


def test_products_of_halves_agree_too() -> None:
    given = inputs((HEADS, SIZE), (GROUPS,))
    decay = -torch.rand(HEADS, generator=torch.Generator().manual_seed(1))
    plan = rule.plan_chunks(LENGTHS, kernel=4, device=torch.device("cpu"))
    arguments = given["x"], given["dt"], decay, given["b"], given["c"], given["state"], plan
    plain, halves = state_space.heads_chunked(*arguments), state_space.heads_chunked(*arguments, rounded=True)
    for one, other in zip(plain, halves, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_convolution_without_an_activation_is_linear() -> None:
    x, weight = torch.randn(10, 6), torch.randn(6, 3)
    plan = rule.plan_chunks([10], kernel=3, device=torch.device("cpu"))
    window = torch.zeros(1, 2, 6)
    found, _ = rule.convolve(x, weight, None, window, plan, silu=False)
    padded = torch.cat([window[0], x])
    expected = sum(padded[tap : tap + 10] * weight[:, tap] for tap in range(3))
    torch.testing.assert_close(found, expected)
