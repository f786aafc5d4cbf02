"""Inputs of EAGLE-style draft models: vLLM's kernels over whole batches. R requests.

Arithmetic is int32, and what is written is written whole or by index (docs/silicon.md).
"""

from __future__ import annotations

import torch

from ascend_plugin.ops.rows import write_first


def eagle_step_slot_mapping(
    positions: torch.Tensor,  # [R]
    block_table: torch.Tensor,  # [R, blocks]
    block_table_stride: int,
    seq_lens: torch.Tensor,  # [R], updated
    out_clamped_positions: torch.Tensor,  # [R], written
    out_slot_mapping: torch.Tensor,  # [padded R], written
    block_size: int,
    max_model_len: int,
    n_blocks_per_req: int,
    pad_id: int,
    batch_size: int,
) -> None:
    """Advance every request by one drafted token: position, cache slot and length."""
    advanced = positions[:batch_size].to(torch.int32) + 1
    too_long = advanced >= max_model_len
    clamped = advanced.masked_fill(too_long, 0)
    block = (clamped // block_size).clamp_(max=n_blocks_per_req - 1).to(torch.int64)
    blocks = block_table[:batch_size].gather(1, block[:, None]).squeeze(1)
    slots = (blocks * block_size + clamped % block_size).masked_fill(too_long, pad_id)
    write_first(out_slot_mapping, _padded(slots.to(out_slot_mapping.dtype), len(out_slot_mapping), pad_id))
    write_first(out_clamped_positions, clamped.to(out_clamped_positions.dtype))
    grown = (seq_lens[:batch_size] + 1).masked_fill(too_long, 1).clamp_(max=max_model_len)
    write_first(seq_lens, grown)


def eagle_prepare_inputs_padded(
    cu_num_draft_tokens: torch.Tensor,  # [R]
    valid_sampled_tokens_count: torch.Tensor,  # [R]
    query_start_loc: torch.Tensor,  # [R + 1]
    token_indices_to_sample: torch.Tensor,  # [R], written
    num_rejected_tokens: torch.Tensor,  # [R], written
    num_reqs: int,
) -> None:
    """Find the last accepted token of each request and how many of its drafts were rejected."""
    cumulative = cu_num_draft_tokens[:num_reqs].to(torch.int32)
    drafts = cumulative - torch.cat([cumulative.new_zeros(1), cumulative[:-1]])
    rejected = (drafts + 1 - valid_sampled_tokens_count[:num_reqs]).masked_fill_(drafts <= 0, 0)
    write_first(token_indices_to_sample, query_start_loc[1 : num_reqs + 1] - 1 - rejected)
    write_first(num_rejected_tokens, rejected)


def eagle_prepare_next_token_padded(
    sampled_token_ids: torch.Tensor,  # [R, K]; -1 is a rejected token
    discard_request_mask: torch.Tensor,  # [R] bool
    backup_next_token_ids: torch.Tensor,  # [R]
    next_token_ids: torch.Tensor,  # [R], written
    valid_sampled_tokens_count: torch.Tensor,  # [R], written
    vocab_size: int,
    num_sampled_tokens_per_req: int,
    num_reqs: int,
    stride_sampled_token_ids: int = 0,
    block_size_tokens: int = 0,
) -> None:
    """Take each request's last valid token as the next to draft from, or its backup where there is none."""
    tokens = sampled_token_ids[:num_reqs, :num_sampled_tokens_per_req]
    valid = (tokens != -1) & (tokens < vocab_size) & ~discard_request_mask[:num_reqs, None]
    count = valid.to(torch.float32).sum(dim=1)
    columns = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
    last = torch.where(valid, columns, torch.zeros_like(columns)).amax(dim=1, keepdim=True)
    chosen = tokens.gather(1, last.to(torch.int64)).squeeze(1).to(next_token_ids.dtype)
    backup = backup_next_token_ids[:num_reqs].to(next_token_ids.dtype)
    write_first(next_token_ids, torch.where(count > 0, chosen, backup))
    write_first(valid_sampled_tokens_count, count.to(valid_sampled_tokens_count.dtype))


def _padded(values: torch.Tensor, length: int, fill: int) -> torch.Tensor:
    missing = length - len(values)
    return torch.cat([values, values.new_full((missing,), fill)]) if missing else values
