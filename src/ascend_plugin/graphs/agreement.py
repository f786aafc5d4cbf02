"""Ranks that share collectives keep the same graphs.

HCCL asks that all ranks of a communicator run the graph of one capture (hccl, docs/zh/user_guide/constraints.md): one
that decodes eagerly among others that replay means a hang or mixed data, never an error.
"""

from __future__ import annotations

import torch
import torch.distributed as dist


def all_ranks(yes: bool, group: dist.ProcessGroup | None) -> bool:
    """Whether every rank of a group on the CPU says yes; None: this rank is alone."""
    if group is None or dist.get_world_size(group) == 1:
        return yes
    answers = torch.tensor([int(yes)], dtype=torch.int32)
    dist.all_reduce(answers, op=dist.ReduceOp.MIN, group=group)
    return bool(answers.item())


def tensor_parallel_ranks() -> dist.ProcessGroup | None:
    """The ranks whose collectives a decode graph holds; None where there is one rank."""
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    return group.cpu_group if group.world_size > 1 else None
