"""Positions that a model adds to come in int32."""

from __future__ import annotations

import torch
from vllm.model_executor.models.opt import OPTLearnedPositionalEmbedding

from ascend_plugin.ops.positions import prepare


def test_what_adds_to_positions_gets_them_in_int32_once_and_answers_the_same() -> None:
    table = OPTLearnedPositionalEmbedding(8, 4)
    positions = torch.tensor([0, 5, 7])
    expected = table(positions)
    seen: list[torch.dtype] = []
    model = torch.nn.ModuleList([table])
    prepare(model)
    prepare(model)
    table.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    assert torch.equal(table(positions), expected)
    assert seen == [torch.int32] and len(table._forward_pre_hooks) == 2
