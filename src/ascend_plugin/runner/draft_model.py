"""The first pass of a draft model, which reads what its target read and the token that came of it. R requests.

Upstream works the layout out in a Triton kernel and cache slots in int64 on the device, which the 310P faults on. Here
the host lays the pass out, since it knows how many tokens each request has; the device decides in int32 which of them
were refused drafts, which under asynchronous scheduling nobody else knows yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.spec_decode.draft_model import DraftModelProposer
from vllm.v1.spec_decode.utils import PADDING_SLOT_ID, extend_all_queries_by_N

from ascend_plugin.ops.rows import WrittenByIndex, write_first
from ascend_plugin.ops.upload import upload


class AscendDraftModel(DraftModelProposer):
    """vLLM's, with the first pass laid out as above."""

    def set_inputs_first_pass(
        self,
        target_token_ids: torch.Tensor,  # [tokens], refused drafts among them
        next_token_ids: torch.Tensor,  # [R], sampled
        target_positions: torch.Tensor,  # [tokens]
        target_hidden_states: torch.Tensor,
        token_indices_to_sample: torch.Tensor | None,
        cad: Any,
        num_rejected_tokens_gpu: torch.Tensor | None,  # [R]
    ) -> tuple[int, torch.Tensor, Any]:
        """Each request's kept tokens, the sampled one, and padding for what was refused: one token more than it had."""
        requests = cad.batch_size()
        lengths = cad.query_start_loc_cpu[: requests + 1].diff().numpy()
        request, place, source, length, start, begin = upload(first_pass(lengths), self.device, torch.int32)

        kept = length if num_rejected_tokens_gpu is None else length - num_rejected_tokens_gpu
        kept_here = kept.index_select(0, request)
        refused = place > kept_here
        tokens = torch.where(
            place == kept_here,
            next_token_ids.index_select(0, request).to(self.input_ids.dtype),
            target_token_ids.index_select(0, source).to(self.input_ids.dtype),
        )
        write_first(self.input_ids, tokens.masked_fill(refused, 0))
        first = target_positions.index_select(0, start).to(torch.int32)
        positions = (first.index_select(0, request) + place).masked_fill(refused, 0)
        write_first(self.positions, positions)

        table = cad.block_table_tensor
        column = (positions // self.block_size).clamp_(max=table.shape[1] - 1)
        block = table.reshape(-1).index_select(0, request * table.shape[1] + column)
        slots = block * self.block_size + positions % self.block_size
        slots = slots.masked_fill(refused | (positions >= self.max_model_len), PADDING_SLOT_ID)
        longer = extend_all_queries_by_N(
            cad, N=1, arange=self.arange, new_slot_mapping=slots.to(cad.slot_mapping.dtype)
        )
        if cad.seq_lens_cpu_upper_bound is not None:
            longer = longer.replace(seq_lens_cpu_upper_bound=cad.seq_lens_cpu_upper_bound + 1)
        return len(tokens), begin + kept, longer


def write_inputs_by_index(drafter: Any) -> None:
    """Let a drafter's own buffers of tokens and positions, [tokens] or [3, tokens], be written by index."""
    for name in ("input_ids", "positions", "mrope_positions"):
        buffer = getattr(drafter, name, None)
        if isinstance(buffer, torch.Tensor):
            setattr(drafter, name, WrittenByIndex.of(buffer))


def first_pass(lengths: np.ndarray) -> list[torch.Tensor]:
    """Where everything is in the pass of requests of these lengths, on the host.

    For each token of the pass [tokens + R]: its request, its place in it, and the target's token for it (or any, for
    the last). For each request [R]: its length, where it starts in the target's tokens, where it begins in the pass.
    """
    requests = len(lengths)
    start = np.cumsum(lengths) - lengths
    begin = start + np.arange(requests)
    request = np.repeat(np.arange(requests), lengths + 1)
    place = np.arange(len(request)) - begin[request]
    source = np.minimum(start[request] + place, max(int(lengths.sum()) - 1, 0))
    return [torch.from_numpy(each) for each in (request, place, source, lengths, start, begin)]
