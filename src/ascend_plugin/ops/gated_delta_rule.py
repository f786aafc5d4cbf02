"""The gated delta rule in stock operators: a matmul form over chunks for prefill, one step for decoding.

Each head keeps a state S [values, keys]. A token with key k, value v, decay exp(g) and rate b does

    S <- exp(g) S;   S <- S + b (v - S k) k^T;   output = S q

Within a chunk of C tokens the corrections v - S k depend on one another through a triangular system, which is solved
for all chunks at once; only the state passes from chunk to chunk. Nothing is larger than [chunks, heads, C, C], so the
memory is linear in the length. Plain torch on every device, so the same code is tested on a CPU.
Source: Yang, Kautz, Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce

import torch

from ascend_plugin.ops.upload import upload

CHUNK = 64  # tokens: a power of two, so that the triangular inverse is built by doubling


@dataclass(frozen=True)
class ChunkPlan:
    """Where the tokens of several sequences go when they are cut into chunks; made on the host once a step.

    Chunks are ordered by step: first chunks of all sequences, then second chunks, and so on, longest sequence first;
    the sequences still active at a step are then a prefix of the batch.
    """

    token_of_slot: (
        torch.Tensor
    )  # [chunks * C] int64: token in each place of a chunk; the number of tokens where none is
    slot_of_token: torch.Tensor  # [tokens] int64
    order: torch.Tensor  # [sequences] int64: longest first
    active: tuple[int, ...]  # sequences that have an n-th chunk
    # kernel times [tokens] int64: the row of each tap of each token in the convolution's input; the last is its own
    window: tuple[torch.Tensor, ...]
    tails: torch.Tensor  # [sequences, kernel - 1] int64: rows that become the convolution's next state
    heads: torch.Tensor  # [sequences, kernel - 1] int64: rows that hold its present state


def plan_chunks(lengths: Sequence[int], kernel: int, device: torch.device) -> ChunkPlan:
    """Plan for sequences of these lengths (each at least 1), laid out one after another; kernel: of the convolution."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    starts = torch.tensor([0, *lengths]).cumsum(0)
    total = int(starts[-1])
    chunks = [-(-length // CHUNK) for length in lengths]
    active = tuple(sum(count > step for count in chunks) for step in range(max(chunks)))
    slots = torch.full((sum(active) * CHUNK,), total)
    slot_of_token = torch.empty(total, dtype=torch.int64)
    first = 0
    for step, members in enumerate(active):
        for position, sequence in enumerate(order[:members]):
            begin = int(starts[sequence]) + step * CHUNK
            count = min(CHUNK, int(starts[sequence + 1]) - begin)
            slot = (first + position) * CHUNK
            slots[slot : slot + count] = torch.arange(begin, begin + count)
            slot_of_token[begin : begin + count] = torch.arange(slot, slot + count)
        first += members
    history = kernel - 1
    sequence_of_token = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    window = torch.arange(total) + (sequence_of_token + 1) * history
    heads = (starts[:-1] + torch.arange(len(lengths)) * history).unsqueeze(1) + torch.arange(history)
    tails = heads + torch.tensor(lengths).unsqueeze(1)
    taps = [window - (history - tap) for tap in range(kernel)]
    on_host = (slots, slot_of_token, torch.tensor(order), tails, heads, *taps)
    slots, slot_of_token, order_, tails, heads, *taps = upload(on_host, device)
    return ChunkPlan(slots, slot_of_token, order_, active, tuple(taps), tails, heads)


def gates(
    a: torch.Tensor, b: torch.Tensor, decay_log: torch.Tensor, dt_bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-decay g <= 0 and rate in (0, 1), fp32, from the projections a and b ([tokens, heads])."""
    g = -decay_log.float().exp() * torch.nn.functional.softplus(a.float() + dt_bias.float())
    return g, b.float().sigmoid()


def unit(x: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """x scaled to length one over its last dimension, fp32."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + epsilon)


def chunked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    rate: torch.Tensor,
    state: torch.Tensor,
    plan: ChunkPlan,
    rounded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run whole sequences (or their next pieces) through the rule.

    q, k [tokens, key heads, keys], of unit length; v [tokens, heads, values]; g, rate [tokens, heads]; state
    [sequences, heads, values, keys]; all fp32. Returns the outputs [tokens, heads, values] and the states afterwards.

    rounded: the device rounds the operands of products to float16. What a chunk adds to the state is then put together
    from products of halves: states outlive their chunk, so that errors in them add up, most where keys are alike.
    """
    q, k, v, g, rate = (to_chunks(x, plan) for x in (q * q.shape[-1] ** -0.5, k, v, g, rate))
    repeats = v.shape[1] // k.shape[1]
    q, k = (x.repeat_interleave(repeats, dim=1) for x in (q, k))
    total = g.cumsum(dim=-1)  # [chunks, heads, C]: log-decay since the chunk began, this token's included
    between = decay_between(total)
    keys_t = k.transpose(-1, -2)
    coupling = rate.unsqueeze(-1) * torch.matmul(k, keys_t) * between
    solve = inverse_of_unit_lower(coupling.tril(-1))
    corrected = torch.matmul(solve, v * rate.unsqueeze(-1))
    responses = torch.matmul(solve, k * (rate * total.exp()).unsqueeze(-1))
    scores = torch.matmul(q, keys_t) * between
    queries = q * total.exp().unsqueeze(-1)
    remaining = (total[..., -1:] - total).exp().unsqueeze(-1) * k
    decay = total[..., -1, None, None].exp()
    return pass_state(queries, scores, corrected, responses, remaining, decay, state, plan, rounded)


def decay_between(total: torch.Tensor) -> torch.Tensor:
    """[..., C, C]: what is left at each token of what an earlier one, or it itself, has put in; 0 for later ones."""
    return (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(_ahead(total.device), float("-inf")).exp()


def pass_state(
    queries: torch.Tensor,
    scores: torch.Tensor,
    corrected: torch.Tensor,
    responses: torch.Tensor | None,
    remaining: torch.Tensor,
    decay: torch.Tensor,
    state: torch.Tensor,
    plan: ChunkPlan,
    rounded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The one sequential part: from chunk to chunk, for all sequences that still have one.

    responses: what a chunk's values lose by the state before them; None where they do not depend on it.
    """
    state = state.index_select(0, plan.order)
    if rounded:
        remaining_high, remaining_low = _halves(remaining)
        remaining = torch.cat([remaining_high, remaining_high, remaining_low], dim=-2)
    outputs, first = [], 0
    for members in plan.active:
        here = slice(first, first + members)
        before = state[:members]
        before_t = before.transpose(-1, -2)
        values = corrected[here]
        if responses is not None:
            values = values - torch.matmul(responses[here], before_t)
        outputs.append(torch.matmul(queries[here], before_t) + torch.matmul(scores[here], values))
        if rounded:  # all but the product of both low halves, 2^-22 of the whole
            high, low = _halves(values)
            values = torch.cat([high, low, high], dim=-2)
        after = decay[here] * before + torch.matmul(values.transpose(-1, -2), remaining[here])
        state = after if members == state.shape[0] else torch.cat([after, state[members:]])
        first += members
    # [chunks, heads, C, values] -> tokens in their order
    by_slot = torch.cat(outputs).transpose(1, 2).flatten(0, 1)
    final = torch.empty_like(state)
    final[plan.order] = state
    return by_slot.index_select(0, plan.slot_of_token), final


def _halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x as float16 holds it, and what is missing; both survive being rounded to float16."""
    high = x.to(torch.float16).to(x.dtype)
    return high, x - high


def to_chunks(x: torch.Tensor, plan: ChunkPlan) -> torch.Tensor:
    """[tokens, heads, ...] -> [chunks, heads, C, ...], zeros where a chunk has no token (which change no state)."""
    padded = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
    chunks: torch.Tensor = padded.index_select(0, plan.token_of_slot).unflatten(0, (-1, CHUNK))
    return chunks.transpose(1, 2)


def inverse_of_unit_lower(below: torch.Tensor) -> torch.Tensor:
    """(I + L)^-1 for strictly lower triangular L ([..., C, C], C a power of two), by doubling.

    The inverse of [[P, 0], [R, Q]] is [[P', 0], [-Q' R P', Q']]: with the diagonal blocks' inverses in one
    block-diagonal matrix X, each doubling is X - X R X, two products for all blocks at once. Unlike the Neumann series,
    no power of L is formed: those grow like binomial coefficients where keys are alike.
    """
    size = below.shape[-1]
    inverse, *pairs = _doubling(size, below.dtype, below.device)
    inverse = inverse.expand_as(below)
    for lower in pairs:
        inverse = inverse - torch.matmul(torch.matmul(inverse, below * lower), inverse)
    return inverse


@cache
def _doubling(size: int, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    """The identity, and for each doubling 1 where R is and 0 elsewhere; [size, size] each. Made on the host."""
    row, block, matrices = torch.arange(size), 1, [torch.eye(size)]
    while block < size:
        pair, half = row // (2 * block), row // block % 2
        matrices.append((pair.unsqueeze(1) == pair) & (half.unsqueeze(1) > half))
        block *= 2
    return [matrix.to(dtype).to(device) for matrix in matrices]


@cache
def _ahead(device: torch.device) -> torch.Tensor:
    """[C, C] bool: the tokens of a chunk that come after each."""
    return torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1).to(device)


def step(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, rate: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token for each sequence.

    q, k [sequences, key heads, keys], of unit length; v [sequences, heads, values]; g, rate [sequences, heads]; state
    [sequences, heads, values, keys]; all fp32. Returns the outputs [sequences, heads, values] and the new states.
    """
    repeats = v.shape[1] // k.shape[1]
    q, k = (x.repeat_interleave(repeats, dim=1).unsqueeze(-1) for x in (q * q.shape[-1] ** -0.5, k))
    state = g.exp()[..., None, None] * state
    correction = rate.unsqueeze(-1) * (v - torch.matmul(state, k).squeeze(-1))
    state = state + correction.unsqueeze(-1) * k.transpose(-1, -2)
    return torch.matmul(state, q).squeeze(-1), state


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    state: torch.Tensor,
    plan: ChunkPlan,
    silu: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal depthwise convolution, with SiLU or without, over sequences laid out one after another.

    x [tokens, channels]; weight [channels, kernel]; state [sequences, kernel - 1, channels], the inputs before x.
    Returns the outputs [tokens, channels] and the states afterwards.
    """
    kernel = weight.shape[-1]
    rows = x.new_empty(x.shape[0] + state.shape[0] * (kernel - 1), x.shape[1])
    rows[plan.heads.flatten()] = state.flatten(0, 1).to(x.dtype)
    rows[plan.window[-1]] = x
    windows = (rows.index_select(0, places) for places in plan.window)
    total = reduce(torch.add, (window.float() * weight[:, tap].float() for tap, window in enumerate(windows)))
    return _activate(total, bias, x.dtype, silu), rows[plan.tails]


def convolve_step(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, silu: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for one token of each sequence: x [sequences, channels]."""
    window = torch.cat([state.to(x.dtype), x.unsqueeze(1)], dim=1)  # [sequences, kernel, channels]
    total = (window.float() * weight.float().t()).sum(dim=1)
    return _activate(total, bias, x.dtype, silu), window[:, 1:]


def convolve_steps(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, state: torch.Tensor, silu: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for L tokens of each sequence: x [L, sequences, channels].

    Returns the outputs [L, sequences, channels] and the inputs with those before them, [kernel - 1 + L, sequences,
    channels]: the state after token t is its rows t + 1 to t + kernel - 1.
    """
    length, kernel = x.shape[0], weight.shape[-1]
    inputs = torch.cat([state.to(x.dtype).transpose(0, 1), x])
    total = reduce(torch.add, (inputs[tap : tap + length].float() * weight[:, tap].float() for tap in range(kernel)))
    return _activate(total, bias, x.dtype, silu), inputs


def _activate(total: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, silu: bool) -> torch.Tensor:
    if bias is not None:
        total = total + bias.float()
    return (torch.nn.functional.silu(total) if silu else total).to(dtype)
