"""Experts keep the layout that the chip's matrix unit reads, whatever their shape."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

FRACTAL_NZ = 29
INNER = 64


def layouts_and_error(hidden: int) -> tuple[list[int], float]:
    """aclFormats of the two weights after loading, and the largest relative error of their products."""
    from types import SimpleNamespace

    import torch_npu
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    from ascend_plugin.ops import moe

    torch.npu.config.allow_internal_format = True
    torch.npu.set_compile_mode(jit_compile=False)
    method = moe.AscendFusedMoEMethod.__new__(moe.AscendFusedMoEMethod)
    torch.nn.Module.__init__(method)
    layer = torch.nn.Module()
    layer.moe_config = SimpleNamespace(has_bias=False, hidden_dim=hidden)
    layer.activation, layer.apply_router_weight_on_input = MoEActivation.SILU, False
    generator = torch.Generator().manual_seed(0)
    plain = {}
    for name, outputs, inputs in (("w13", 2 * INNER, hidden), ("w2", hidden, INNER)):
        plain[name] = torch.randn(2, outputs, inputs, generator=generator).half() / inputs**0.5
        layer.register_parameter(f"{name}_weight", torch.nn.Parameter(plain[name].npu(), requires_grad=False))
    UnquantizedFusedMoEMethod.process_weights_after_loading = lambda self, layer: None  # choosing CUDA's kernel
    method.process_weights_after_loading(layer)
    formats = [torch_npu.get_npu_format(getattr(layer, f"{name}_weight")) for name in plain]
    rows = torch.randn(6, hidden, generator=generator).half()
    product = moe.GroupedProduct(layer.w13_weight)(rows.npu(), torch.tensor([2, 6]).npu(), moe.RUNNING_TOTALS).cpu()
    expected = torch.cat(
        [rows[:2].float() @ plain["w13"][0].float().t(), rows[2:].float() @ plain["w13"][1].float().t()]
    )
    return formats, float((product.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("hidden", [2 * INNER, INNER, 96], ids=["square w13", "square w2", "no square"])
def test_weights_are_in_the_layout_of_the_chip(npu: Npu, hidden: int) -> None:
    formats, error = npu.call(layouts_and_error, hidden)
    assert formats == [FRACTAL_NZ, FRACTAL_NZ]
    assert error < 2e-3
