"""Direct calls of a loaded model's modules: same results, hooks keep working, and no class of others changes."""

from __future__ import annotations

import torch
from torch import nn

from ascend_plugin.compat import module_dispatch


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.bias = nn.Parameter(torch.ones(3))
        self.absent: nn.Module | None
        self.register_module("absent", None)
        self.register_parameter("scale", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.scale is None
        return self.linear(x) + self.bias


def prepared() -> Block:
    torch.manual_seed(0)
    block = Block()
    module_dispatch.apply(block)
    return block


def test_results_and_classes_are_the_same() -> None:
    x = torch.randn(2, 3)
    torch.manual_seed(0)
    plain, block = Block(), prepared()
    assert torch.equal(plain(x), block(x))
    assert isinstance(block, Block) and isinstance(block.linear, nn.Linear)
    assert type(block.linear).__qualname__ == "Linear" and type(block.linear) is not nn.Linear


def test_classes_of_others_are_left_alone() -> None:
    prepared()
    for kind in (nn.Module, nn.Linear, Block):
        assert kind.__call__ is nn.Module._wrapped_call_impl


def test_applied_again_it_changes_nothing() -> None:
    block = prepared()
    kinds = [type(module) for module in block.modules()]
    module_dispatch.apply(block)
    assert [type(module) for module in block.modules()] == kinds


def test_hooks_run() -> None:
    block, seen = prepared(), []
    block.linear.register_forward_hook(lambda *_: seen.append("after"))
    block.linear.register_forward_pre_hook(lambda *_: seen.append("before"))
    block(torch.ones(1, 3))
    assert seen == ["before", "after"]


def test_a_replaced_submodule_is_the_one_that_runs() -> None:
    block = prepared()
    block.linear = nn.Identity()
    x = torch.ones(1, 3)
    assert torch.equal(block(x), x + block.bias)
    assert block.linear is dict(block.named_modules())["linear"]


def test_a_custom_operator_with_a_forward_of_its_own_keeps_it() -> None:
    from vllm.model_executor.custom_op import CustomOp

    class Doubled(CustomOp):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self._forward_method = self.forward_native

        def forward_native(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    class Flattened(Doubled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten())

    plain, own = Doubled(), Flattened()
    for module in (plain, own):
        module_dispatch.apply(module)
    assert plain.__dict__["forward"] == plain.forward_native
    assert own(torch.zeros(2, 2)).shape == (4,)
