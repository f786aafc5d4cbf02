"""Verification of speculated tokens: vLLM's four rejection-sampling kernels over whole batches.

Shapes: B requests, N speculated tokens in all, V vocabulary; cu_num_draft_tokens [B] is the inclusive running sum.

Places are int32, rows are picked by flat indices, counts are summed in float32 and results are written whole: the forms
that are sure on every chip (docs/silicon.md).
"""

from __future__ import annotations

import torch


def _draft_grid(cu_num_draft_tokens: torch.Tensor, width: int, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For a [B, width] grid of draft positions: which flat token each is (clamped, [B * width]), whether it exists."""
    ends = cu_num_draft_tokens.to(torch.int32)
    starts = _previous(ends)
    columns = torch.arange(width, device=ends.device, dtype=torch.int32)
    index = (starts[:, None] + columns).clamp_(max=max(total - 1, 0))
    return index.flatten(), columns < (ends - starts)[:, None]


def _previous(ends: torch.Tensor) -> torch.Tensor:
    """[a, b, c] -> [0, a, b]."""
    return torch.cat([ends.new_zeros(1), ends[:-1]])


def _pick(values: torch.Tensor, index: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """values[index] for a grid of flat indices; zeros where there are no values."""
    return values.index_select(0, index).view(shape) if len(values) else values.new_zeros(shape)


def _pick_probabilities(probabilities: torch.Tensor, index: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """probabilities [N, V] of tokens `columns` [B, width] at the flat rows `index`."""
    at_token = probabilities.index_select(0, index)
    return at_token.gather(1, columns.reshape(-1, 1).to(torch.int64)).view(columns.shape)


def _write_accepted(
    output: torch.Tensor,  # [B, max_spec_len + 1], written
    tokens: torch.Tensor,  # [B, W] token to emit at each position
    accepted: torch.Tensor,  # [B, W] bool
    exists: torch.Tensor,  # [B, W] bool
    bonus: torch.Tensor,  # [B, 1] or [B]
    rows: torch.Tensor,  # [B] bool: requests that this kernel handles
) -> None:
    """Emit each request's tokens up to and with the first rejected one, and the bonus token if none is."""
    # [B, W + 1]: drafts that were refused before a position; W is 0 where no request has a draft.
    refused = torch.cat([(~rows[:, None]).to(torch.float32), (~accepted & exists).to(torch.float32)], dim=1)
    unbroken = refused.cumsum(dim=1) == 0
    bonus = bonus.reshape(-1, 1).to(output.dtype)
    # The bonus token follows the last draft that exists.
    at_end = torch.cat([torch.ones_like(rows[:, None]), exists], dim=1)
    at_end = at_end & ~torch.cat([exists, torch.zeros_like(rows[:, None])], dim=1)
    emitted = torch.cat([tokens.to(output.dtype), bonus], dim=1)
    emitted = torch.where(at_end, bonus, emitted)
    written = unbroken & (at_end | torch.cat([exists, torch.zeros_like(rows[:, None])], dim=1))
    output.copy_(torch.where(written, emitted, output))


def rejection_greedy_sample(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    target_argmax: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    is_greedy: torch.Tensor | None,
    max_spec_len: int,
    uniform_probs: torch.Tensor | None = None,
    synthetic_conditional_rates: torch.Tensor | None = None,
    synthetic_mode: bool = False,
) -> None:
    """Accept drafts while they equal the target's argmax; the first that does not is replaced by it."""
    batch = output_token_ids.shape[0]
    rows = is_greedy if is_greedy is not None else torch.ones(batch, dtype=torch.bool, device=output_token_ids.device)
    index, exists = _draft_grid(cu_num_draft_tokens, max_spec_len, draft_token_ids.shape[0])
    drafts = _pick(draft_token_ids, index, exists.shape)
    targets = _pick(target_argmax.to(draft_token_ids.dtype), index, exists.shape)
    if synthetic_mode:
        uniform = _pick(_given(uniform_probs), index, exists.shape)
        accepted = (uniform < _given(synthetic_conditional_rates)[None, :max_spec_len]) & (drafts >= 0)
        tokens = torch.where(accepted, drafts, targets)
    else:
        accepted, tokens = drafts == targets, targets
    _write_accepted(output_token_ids, tokens, accepted, exists, bonus_token_ids, rows)


def rejection_random_sample(
    output_token_ids: torch.Tensor,
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    bonus_token_ids: torch.Tensor,
    recovered_token_ids: torch.Tensor,
    uniform_probs: torch.Tensor,
    is_greedy: torch.Tensor,
    max_spec_len: int,
    vocab_size: int,
    synthetic_conditional_rates: torch.Tensor | None = None,
    no_draft_probs: bool = False,
    synthetic_mode: bool = False,
) -> None:
    """Accept a draft with probability min(1, target / draft) (Leviathan et al., arXiv 2211.17192, algorithm 1)."""
    index, exists = _draft_grid(cu_num_draft_tokens, max_spec_len, draft_token_ids.shape[0])
    drafts = _pick(draft_token_ids, index, exists.shape)
    uniform = _pick(uniform_probs.to(torch.float32), index, exists.shape)
    if synthetic_mode:
        accepted = uniform < _given(synthetic_conditional_rates)[None, :max_spec_len]
    else:
        column = drafts.clamp(min=0)
        target = _pick_probabilities(target_probs, index, column)
        draft = torch.ones_like(target) if draft_probs is None else _pick_probabilities(draft_probs, index, column)
        accepted = (draft > 0) & (target >= uniform * draft)
    accepted = accepted & (drafts >= 0)
    tokens = torch.where(accepted, drafts, _pick(recovered_token_ids, index, exists.shape).to(drafts.dtype))
    _write_accepted(output_token_ids, tokens, accepted, exists, bonus_token_ids, ~is_greedy)


def expand(
    output: torch.Tensor,  # [N], written
    input: torch.Tensor,  # [B]
    cu_num_tokens: torch.Tensor,  # [B]
    replace_from: float,
    replace_to: float,
    max_num_tokens: int = 0,
) -> None:
    """Repeat each request's value for each of its tokens, replacing one value by another."""
    values = input.index_select(0, _request_of_token(cu_num_tokens, output.shape[0]))
    output.copy_(torch.where(values == replace_from, torch.full_like(values, replace_to), values))


def sample_recovered_tokens(
    output_token_ids: torch.Tensor,  # [N], written
    cu_num_draft_tokens: torch.Tensor,
    draft_token_ids: torch.Tensor,
    draft_probs: torch.Tensor | None,
    target_probs: torch.Tensor,
    inv_q: torch.Tensor,  # [B, V] reciprocals of exponential noise
    vocab_size: int,
    triton_block_size: int = 0,
    no_draft_probs: bool = False,
    use_fp64_gumbel: bool = False,
) -> None:
    """Draw the token to use if a draft is rejected, from what the target has above the draft."""
    total = output_token_ids.shape[0]
    if total == 0:
        return
    if draft_probs is None:
        tokens = torch.arange(target_probs.shape[1], device=target_probs.device, dtype=torch.int32)
        excess = target_probs.masked_fill(tokens == draft_token_ids.to(torch.int32)[:, None], 0.0)
    else:
        excess = (target_probs - draft_probs).clamp_(min=0.0)
    noise = inv_q.index_select(0, _request_of_token(cu_num_draft_tokens, total))
    output_token_ids.copy_((excess * noise).argmax(dim=-1))


def _request_of_token(ends: torch.Tensor, total: int) -> torch.Tensor:
    """[total] int32: the request that each flat token belongs to."""
    tokens = torch.arange(total, device=ends.device, dtype=torch.int32)
    passed = (tokens[:, None] >= ends.to(torch.int32)).to(torch.float32).sum(dim=1)
    return passed.to(torch.int32).clamp_(max=len(ends) - 1)


def _given(tensor: torch.Tensor | None) -> torch.Tensor:
    """An argument that vLLM leaves out unless acceptance is synthetic."""
    if tensor is None:
        raise ValueError("Synthetic acceptance of drafts needs its rates and uniform numbers: vLLM gave none.")
    return tensor
