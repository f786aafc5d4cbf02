"""The embedding table that tensor-parallel ranks share by rows of the vocabulary."""

from __future__ import annotations

import torch
from vllm.distributed import tensor_model_parallel_all_reduce
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding


class AscendVocabParallelEmbedding(VocabParallelEmbedding):
    """vLLM's layer; under tensor parallelism ids are brought to this rank's rows in int32.

    Upstream's masks, written for a compiler that fuses them, are sixteen launches here, and two of them are products of
    a mask and a number: int64, which Ascend 310P's vector units are known to fault on at some lengths.
    """

    def forward(self, input_: torch.Tensor) -> torch.Tensor:
        """Rows [.., hidden] of ids [..], summed over the ranks unless the layer is told otherwise."""
        indices = self.shard_indices
        if self.tp_size == 1 or indices.num_added_elements:
            return super().forward(input_)  # type: ignore[no-untyped-call]
        count = indices.num_org_elements  # none where a small table, padded, ends before this rank
        own, elsewhere = rows_of_rank(input_, indices.org_vocab_start_index, max(count, 1))
        found = self.quant_method.embedding(self, own.long())
        if count:
            found.masked_fill_(elsewhere.unsqueeze(-1), 0)
        else:
            found.zero_()
        if not self.reduce_results:
            return found
        group = self.parallel_group
        return tensor_model_parallel_all_reduce(found) if group is None else group.all_reduce(found)


def rows_of_rank(ids: torch.Tensor, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a rank that holds `count` of them from `first` on, and where an id is another rank's (its row is any)."""
    local = ids.int() - first
    own = local.clamp(0, count - 1)
    return own, own != local


def register() -> None:
    if VocabParallelEmbedding.__name__ not in op_registry_oot:
        VocabParallelEmbedding.register_oot(AscendVocabParallelEmbedding, name=VocabParallelEmbedding.__name__)
