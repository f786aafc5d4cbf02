"""Collectives over HCCL."""

from __future__ import annotations

import torch
import torch.distributed as dist
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators.xpu_communicator import XpuCommunicator

from ascend_plugin import detection


def create_communicators(expert_parallel: bool) -> None:
    """Make HCCL's communicators of the groups that layers reduce over, which it otherwise does at their first use.

    HCCL wants them before other memory of the device is taken, or may find too little for its exchange between chips
    (hccl, docs/zh/user_guide/constraints.md, Atlas 300I Duo).
    """
    groups = [parallel_state.get_tp_group()]
    if expert_parallel:
        groups.append(parallel_state.get_ep_group())
    for group in groups:
        if group.world_size > 1:
            dist.all_reduce(torch.zeros(1, device=group.device), group=group.device_group)


class AscendCommunicator(XpuCommunicator):
    """torch.distributed over the hccl backend.

    Derived from XpuCommunicator because graph capture insists on one of two classes (parallel_state.graph_capture), and
    its all-gather and reduce-scatter are plain torch.distributed. What differs on HCCL is overridden.
    """

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Sum over the group, in place: what vLLM reduces is always a fresh tensor, so the copy upstream is wasted."""
        dist.all_reduce(input_, group=self.device_group)
        return input_

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        """Concatenation along dim on group rank dst, None elsewhere; HCCL has no gather, so all ranks receive it."""
        gathered = self.all_gather(input_, dim)
        return gathered if self.rank_in_group == dst else None

    def broadcast(self, tensor: torch.Tensor, src: int = 0) -> torch.Tensor:  # type: ignore[override]  # its callers read it
        """Copy of group rank src's tensor on every rank, in place."""
        if self.world_size == 1:
            return tensor
        if detection.current_chip().has_full_hccl:
            dist.broadcast(tensor, src=self.ranks[src], group=self.device_group)
        else:
            tensor.copy_(self.all_gather(tensor[None], 0)[src])
        return tensor

    def reduce_scatterv(self, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None) -> torch.Tensor:
        """Sum over the group, of which this rank keeps its share along dim; shares may differ in size."""
        if sizes is None or len(set(sizes)) == 1:
            return self.reduce_scatter(input_, dim)
        dim %= input_.dim()
        total = self.all_reduce(input_.movedim(dim, 0).contiguous())
        start = sum(sizes[: self.rank_in_group])
        return total.narrow(0, start, sizes[self.rank_in_group]).movedim(0, dim).contiguous()
