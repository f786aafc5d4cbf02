"""A float32 model on a chip whose cube multiplies float16: products, and caches that no ATB operator reads."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

FRACTAL_NZ = 29


def product_errors(fp32_out: bool, size: float) -> tuple[list[float], float]:
    """Of each row against fp64, relative; and of rows within float16 against a product of what they are rounded to.

    size: of the weights.
    """
    from dataclasses import replace

    import torch_npu

    from ascend_plugin import detection
    from ascend_plugin.ops.linear import gain_of, rounded_product

    chip = detection.current_chip()
    chip = replace(chip, forms=replace(chip.forms, fp32_out_nz=fp32_out))

    torch.npu.config.allow_internal_format = True
    torch.npu.set_compile_mode(jit_compile=False)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 128, generator=generator) * torch.tensor([1e-3, 1.0, 1e3, 1e6, 1e9])[:, None]
    weight = (torch.randn(96, 128, generator=generator) * size).half()
    bias = torch.randn(96, generator=generator)
    stored = torch_npu.npu_format_cast(weight.npu(), FRACTAL_NZ)
    gain = gain_of(weight.npu(), chip)
    assert gain == gain_of(stored, chip)
    found = rounded_product(inputs.npu(), stored, bias.npu(), gain).cpu()
    assert found.dtype == torch.float32
    expected = inputs.double() @ weight.double().t() + bias
    relative = (found - expected).pow(2).mean(dim=1).sqrt() / expected.pow(2).mean(dim=1).sqrt()
    rounded = inputs[:3].half().double() @ weight.double().t() + bias
    return relative.tolist(), float(((found[:3] - rounded).abs() / rounded.abs().amax(dim=1, keepdim=True)).max())


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
@pytest.mark.chips("310P3")
def test_rows_and_products_beyond_float16_keep_their_size(npu: Npu, size: float) -> None:
    relative, _ = npu.call(product_errors, False, size)
    assert max(relative) < 1e-3


@pytest.mark.chips("310P3")
def test_where_products_come_out_in_float32_rows_within_float16_keep_their_bits(npu: Npu) -> None:
    try:
        relative, rounding = npu.call(product_errors, True, 1.0)
    except RuntimeError as refusal:
        if "MatmulWeightNz" not in str(refusal):
            raise
        pytest.skip("this chip refuses the form, which a probe has to allow first")
    assert max(relative) < 1e-3
    assert rounding < 1e-5


def misplaced() -> float:
    """The largest difference between plain pages after a write and what they should hold."""
    from types import SimpleNamespace

    from ascend_plugin.attention.paged_nz import PagedNzAttention, allocate_plain_cache

    key = torch.randn(4, 2, 16, generator=torch.Generator().manual_seed(0)).half()
    slots = torch.tensor([70, -1, 0, 191], dtype=torch.int32)
    layer = PagedNzAttention(2, 16, 1.0, logits_soft_cap=5.0)
    pages = tuple(allocate_plain_cache(3, 64, 2, 16, torch.device("npu")) for _ in range(2))
    layer.write(key.npu(), -key.npu(), pages, SimpleNamespace(slot_mapping=slots.npu(), shared={}))
    expected = torch.zeros(3 * 64, 2, 16)
    expected[[70, 0, 191]] = key[[0, 2, 3]].float()
    rows = [page.cpu().float()[:3].flatten(0, 1) for page in pages]  # the last block is the padding's
    return float(max((rows[0] - expected).abs().max(), (rows[1] + expected).abs().max()))


@pytest.mark.chips("310P3")
def test_tokens_are_written_to_their_slots_and_padding_nowhere(npu: Npu) -> None:
    assert npu.call(misplaced) == 0.0
