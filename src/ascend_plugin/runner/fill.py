"""The numbers of a step, worked out on the host with NumPy. R requests, T tokens, both without padding."""

from __future__ import annotations

import numpy as np


def fill_batch(
    arrays: dict[str, np.ndarray],
    num_scheduled: np.ndarray,  # [R] tokens of each request in this step
    num_computed: np.ndarray,  # [R] tokens already in the cache
    token_ids: np.ndarray,  # [>= R, max length] every request's tokens
    padding_length: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Fill tokens, positions, starts and lengths of a batch; returns (request of each token, its position).

    The rest is padding: token 0 at position 0, empty queries. It has a length, because attention on the device writes
    nothing for a sequence without keys, and what it leaves there need not be a number.
    """
    requests, tokens = len(num_scheduled), int(num_scheduled.sum())
    ends = np.cumsum(num_scheduled)
    owner = np.repeat(np.arange(requests), num_scheduled)
    positions = np.arange(tokens) + (num_computed - ends + num_scheduled)[owner]
    for name, values in (("positions", positions), ("input_ids", token_ids[owner, positions])):
        arrays[name][:tokens] = values
        arrays[name][tokens:] = 0
    arrays["is_padding"][:tokens] = False
    arrays["is_padding"][tokens:] = True
    starts = arrays["query_start_loc"]
    starts[0] = 0
    starts[1 : requests + 1] = ends
    starts[requests + 1 :] = tokens
    arrays["seq_lens"][:requests] = num_computed + num_scheduled
    arrays["seq_lens"][requests:] = padding_length
    arrays["logits_indices"][:requests] = ends - 1
    arrays["logits_indices"][requests:] = 0
    return owner, positions


def fill_slots(
    slots: np.ndarray,  # [T padded]
    block_table: np.ndarray,  # [>= R, width] blocks of each request
    block_size: int,
    owner: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill one KV cache group's slots. Padding: slot -1, which is not written."""
    tokens = len(positions)
    slots[:tokens] = block_table[owner, positions // block_size] * block_size + positions % block_size
    slots[tokens:] = -1


def fill_states(
    read: np.ndarray,  # [R padded]
    written: np.ndarray,  # [K + 1, R padded]
    block_table: np.ndarray,  # [>= R, width] blocks of each request
    first_columns: np.ndarray,  # [R] column of the first of each request's slots in this step
    accepted: np.ndarray,  # [R] tokens of the request's last step that were kept: it goes on from the slot of the last
) -> None:
    """Fill one group's slots of recurrent states. Padding: the null block."""
    requests = len(first_columns)
    columns = np.minimum(first_columns[:, None] + np.arange(len(written)), block_table.shape[1] - 1)
    slots = np.take_along_axis(block_table[:requests], columns, axis=1)
    written[:, :requests] = slots.T
    written[:, requests:] = 0
    read[:requests] = slots[np.arange(requests), accepted - 1]
    read[requests:] = 0


def fill_sampled(
    arrays: dict[str, np.ndarray], previous_rows: np.ndarray, ends: np.ndarray, drafts: np.ndarray | None = None
) -> tuple[int, bool]:
    """Note which of the last step's sampled tokens go where; returns (how many, whether they are its first in order).

    previous_rows [R] has each request's row in the last step, or -1; ends [R] the end of its tokens in this one;
    drafts [R] how many of them are drafts, which come last.
    """
    rows = np.flatnonzero(previous_rows >= 0)
    sources, targets = previous_rows[rows], ends[rows] - 1
    if drafts is not None:
        targets = targets - drafts[rows]
    count = len(rows)
    arrays["sampled_rows"][:count] = sources
    arrays["sampled_targets"][:count] = targets
    return count, bool(np.array_equal(sources, np.arange(count)))


def fill_drafted(
    arrays: dict[str, np.ndarray], previous_rows: np.ndarray, ends: np.ndarray, drafts: np.ndarray, width: int
) -> int:
    """Note which of the last step's drafts, [rows, width] on the device, go where; returns how many."""
    rows = np.flatnonzero((previous_rows >= 0) & (drafts > 0))
    counts = drafts[rows]
    within = _count_up(counts)
    total = len(within)
    arrays["draft_rows"][:total] = np.repeat(previous_rows[rows] * width, counts) + within
    arrays["draft_targets"][:total] = np.repeat(ends[rows] - counts, counts) + within
    return total


def fill_verification(arrays: dict[str, np.ndarray], ends: np.ndarray, drafts: np.ndarray) -> tuple[int, int]:
    """Note whose logits judge which draft; returns (tokens with logits, drafts).

    A request's logits are those of its last token that is no draft and of its drafts: each judges the draft after it,
    the last gives the bonus token.
    """
    requests, sampled = len(drafts), drafts + 1
    sampled_ends, draft_ends = np.cumsum(sampled), np.cumsum(drafts)
    logits, judged = int(sampled_ends[-1]), int(draft_ends[-1])
    within = _count_up(drafts)
    arrays["logits_indices"][:logits] = np.repeat(ends - sampled, sampled) + _count_up(sampled)
    arrays["draft_places"][:judged] = np.repeat(ends - drafts, drafts) + within
    arrays["target_logits_indices"][:judged] = np.repeat(sampled_ends - sampled, drafts) + within
    arrays["bonus_logits_indices"][:requests] = sampled_ends - 1
    arrays["cu_num_sampled_tokens"][:requests] = sampled_ends
    arrays["cu_num_draft_tokens"][:requests] = draft_ends
    return logits, judged


def _count_up(counts: np.ndarray) -> np.ndarray:
    """[2, 0, 3] -> [0, 1, 0, 1, 2]."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
