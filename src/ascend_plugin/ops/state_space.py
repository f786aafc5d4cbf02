"""State-space models in stock operators: Mamba 2 as products over chunks, Mamba 1 as a scan by doubling.

Both keep a state S for each head or channel. With dt > 0 and A < 0, a token with input x does

    S <- exp(dt A) S + dt x B;   output = S C + D x

In Mamba 2 (Dao and Gu, "Transformers are SSMs", 2024, section 6) A is one number a head, so that a chunk is a product
of matrices; in Mamba 1 (Gu and Dao, 2023) it is one for each of a channel's numbers, and a chunk is summed by doubling.
Plain torch on every device, so the same code is tested on a CPU.
"""

from __future__ import annotations

import torch

from ascend_plugin.ops import gated_delta_rule as rule
from ascend_plugin.ops.gated_delta_rule import CHUNK, ChunkPlan


def time_step(dt: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Step sizes, fp32, from their projection."""
    dt = dt.float()
    return torch.nn.functional.softplus(dt if bias is None else dt + bias.float())


def heads_step(
    x: torch.Tensor, dt: torch.Tensor, decay: torch.Tensor, b: torch.Tensor, c: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mamba 2, one token of each sequence, without the skip D x.

    x [sequences, heads, size]; dt [sequences, heads]; decay [heads], A; b, c [sequences, groups, numbers]; state
    [sequences, heads, size, numbers]; all fp32. Returns the outputs, as x, and the new states.
    """
    b, c = (value.repeat_interleave(x.shape[1] // value.shape[1], dim=1) for value in (b, c))
    added = (x * dt.unsqueeze(-1)).unsqueeze(-1) * b.unsqueeze(-2)
    state = (dt * decay).exp()[..., None, None] * state + added
    return torch.matmul(state, c.unsqueeze(-1)).squeeze(-1), state


def heads_chunked(
    x: torch.Tensor,
    dt: torch.Tensor,
    decay: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    plan: ChunkPlan,
    rounded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for whole sequences: x [tokens, heads, size] and so on; `rounded` as in gated_delta_rule.chunked."""
    values, g, b, c = (rule.to_chunks(value, plan) for value in (x * dt.unsqueeze(-1), dt * decay, b, c))
    b, c = (value.repeat_interleave(values.shape[1] // value.shape[1], dim=1) for value in (b, c))
    total = g.cumsum(dim=-1)
    scores = torch.matmul(c, b.transpose(-1, -2)) * rule.decay_between(total)
    queries = c * total.exp().unsqueeze(-1)
    remaining = (total[..., -1:] - total).exp().unsqueeze(-1) * b
    return rule.pass_state(
        queries, scores, values, None, remaining, total[..., -1, None, None].exp(), state, plan, rounded
    )


def channels_step(
    x: torch.Tensor, dt: torch.Tensor, decay: torch.Tensor, b: torch.Tensor, c: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mamba 1, one token of each sequence, without the skip D x.

    x, dt [sequences, channels]; decay [channels, numbers], A; b, c [sequences, numbers]; state [sequences, channels,
    numbers]; all fp32. Returns the outputs, as x, and the new states.
    """
    state = (dt.unsqueeze(-1) * decay).exp() * state + (dt * x).unsqueeze(-1) * b.unsqueeze(-2)
    return (state * c.unsqueeze(-2)).sum(dim=-1), state


def channels_chunked(
    x: torch.Tensor,
    dt: torch.Tensor,
    decay: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    plan: ChunkPlan,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for whole sequences: x [tokens, channels] and so on. A chunk of all sequences is alive at once."""
    x, dt, b, c = (_in_chunks(value, plan) for value in (x, dt, b, c))
    state = state.index_select(0, plan.order)
    outputs, first = [], 0
    for members in plan.active:
        here = slice(first, first + members)
        kept = (dt[here].unsqueeze(-1) * decay).exp()  # [members, C, channels, numbers]
        added = (dt[here] * x[here]).unsqueeze(-1) * b[here].unsqueeze(-2)
        reach = 1
        while reach < CHUNK:  # each place then holds the sum of twice as many tokens up to it
            added = added + kept * _shifted(added, reach, 0.0)
            kept = kept * _shifted(kept, reach, 1.0)
            reach *= 2
        states = added + kept * state[:members].unsqueeze(1)
        outputs.append((states * c[here].unsqueeze(-2)).sum(dim=-1))
        after = states[:, -1]
        state = after if members == state.shape[0] else torch.cat([after, state[members:]])
        first += members
    final = torch.empty_like(state)
    final[plan.order] = state
    return torch.cat(outputs).flatten(0, 1).index_select(0, plan.slot_of_token), final


def _in_chunks(value: torch.Tensor, plan: ChunkPlan) -> torch.Tensor:
    """[tokens, ...] -> [chunks, C, ...], zeros where a chunk has no token (which change no state)."""
    padded = torch.cat([value, value.new_zeros(1, *value.shape[1:])])
    chunks: torch.Tensor = padded.index_select(0, plan.token_of_slot).unflatten(0, (-1, CHUNK))
    return chunks


def _shifted(value: torch.Tensor, places: int, filling: float) -> torch.Tensor:
    """value [members, C, ...] so many places later."""
    start = torch.full_like(value[:, :places], filling)
    return torch.cat([start, value[:, :-places]], dim=1)
