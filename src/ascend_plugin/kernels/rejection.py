"""Verification of speculated tokens: vLLM's four rejection-sampling kernels over whole batches.

Shapes: B requests, N speculated tokens in all, V vocabulary; cu_num_draft_tokens [B] is the inclusive running sum.
"""

from __future__ import annotations

import torch


def _draft_grid(cu_num_draft_tokens: torch.Tensor, width: int, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For a [B, width] grid of draft positions: which flat token each is (clamped), and whether it exists."""
    ends = cu_num_draft_tokens.to(torch.int64)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    columns = torch.arange(width, device=ends.device)
    index = starts[:, None] + columns[None, :]
    return index.clamp_(max=max(total - 1, 0)), columns[None, :] < (ends - starts)[:, None]


def _write_accepted(
    output: torch.Tensor,  # [B, max_spec_len + 1], written
    tokens: torch.Tensor,  # [B, W] token to emit at each position
    accepted: torch.Tensor,  # [B, W] bool
    exists: torch.Tensor,  # [B, W] bool
    bonus: torch.Tensor,  # [B, 1] or [B]
    rows: torch.Tensor,  # [B] bool: requests that this kernel handles
) -> None:
    """Emit each request's tokens up to and with the first rejected one, and the bonus token if none is."""
    # [B, W + 1]: whether all drafts before a position were accepted; W is 0 where no request has a draft.
    links = torch.cat([rows[:, None].to(torch.int32), (accepted | ~exists).to(torch.int32)], dim=1)
    unbroken = links.cumprod(dim=1).to(torch.bool)
    width = tokens.shape[1]
    output[:, :width] = torch.where(unbroken[:, :-1] & exists, tokens.to(output.dtype), output[:, :width])
    columns = torch.arange(output.shape[1], device=output.device)[None, :]
    at_end = columns == exists.sum(dim=1, keepdim=True)
    output.copy_(torch.where(at_end & unbroken[:, -1:], bonus.reshape(-1, 1).to(output.dtype), output))


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
    drafts, targets = draft_token_ids[index], target_argmax[index].to(draft_token_ids.dtype)
    if synthetic_mode:
        accepted = (_given(uniform_probs)[index] < _given(synthetic_conditional_rates)[None, :max_spec_len]) & (
            drafts >= 0
        )
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
    drafts = draft_token_ids[index].to(torch.int64)
    uniform = uniform_probs[index].to(torch.float32)
    if synthetic_mode:
        accepted = uniform < _given(synthetic_conditional_rates)[None, :max_spec_len]
    else:
        column = drafts.clamp(min=0)
        target = target_probs[index, column]
        draft = torch.ones_like(target) if draft_probs is None else draft_probs[index, column]
        accepted = (draft > 0) & (target >= uniform * draft)
    accepted = accepted & (drafts >= 0)
    tokens = torch.where(accepted, drafts, recovered_token_ids[index].to(drafts.dtype))
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
    tokens = torch.arange(output.shape[0], device=output.device, dtype=cu_num_tokens.dtype)
    request = (tokens[:, None] >= cu_num_tokens[None, :]).sum(dim=1).clamp_(max=input.shape[0] - 1)
    values = input[request]
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
    tokens = torch.arange(total, device=output_token_ids.device, dtype=cu_num_draft_tokens.dtype)
    request = (tokens[:, None] >= cu_num_draft_tokens[None, :]).sum(dim=1).clamp_(max=inv_q.shape[0] - 1)
    if draft_probs is None:
        excess = target_probs.scatter(1, draft_token_ids.to(torch.int64).clamp(min=0)[:, None], 0.0)
    else:
        excess = (target_probs - draft_probs).clamp_(min=0.0)
    output_token_ids.copy_((excess * inv_q[request]).argmax(dim=-1))


def _given(tensor: torch.Tensor | None) -> torch.Tensor:
    """An argument that vLLM leaves out unless acceptance is synthetic."""
    if tensor is None:
        raise ValueError("Synthetic acceptance of drafts needs its rates and uniform numbers: vLLM gave none.")
    return tensor
