"""Unpadded prompts: _npu_flash_attention and its variants, with full, compressed, ALiBi and no masks."""

from __future__ import annotations

import pytest
from ascend_emulator.pytest_plugin import Npu

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2}
LENGTHS = [7, 130, 300]


def prompt(variant: str, dtype_name: str = "float16", lengths: list[int] = LENGTHS, masks_future: bool = True) -> float:
    """Largest error of a batch of prompts with grouped heads."""
    import torch
    import torch_npu

    from . import reference

    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    heads, kv_heads, dim = 9, 3, 64
    query, key, value = (torch.randn(sum(lengths), n, dim).to(dtype) for n in (heads, kv_heads, kv_heads))
    out = torch.empty_like(query).npu()
    hidden = reference.HIDDEN if masks_future else 0.0
    common = {"scale_value": 0.125, "num_heads": heads, "num_kv_heads": kv_heads, "out": out}
    seq_len = torch.tensor(lengths, dtype=torch.int32)
    size = (max(lengths) + 15) // 16 * 16
    full = torch.full((size, size), hidden).triu(1)
    inputs = [tensor.npu() for tensor in (query, key, value)]
    bias = None
    if variant == "compressed":
        mask = reference.on_chip_nz(reference.to_nz_matrix(torch.full((2048, 2048), hidden).triu(1).half()))
        torch_npu._npu_flash_attention_v3(*inputs, mask=mask, seq_len=seq_len, **common)
    elif variant == "fractal mask":
        mask = reference.on_chip_nz(reference.to_nz_matrix(full.half()))
        torch_npu._npu_flash_attention(*inputs, mask=mask, seq_len=seq_len, **common)
    elif variant == "row-major mask":
        # In bfloat16 the kernels multiply the mask by -3e38, so that 1 hides a key.
        mask = (full / reference.HIDDEN if dtype == torch.bfloat16 else full).to(dtype)
        torch_npu._npu_flash_attention(*inputs, mask=mask.npu(), seq_len=seq_len, **common)
    elif variant == "alibi":
        slopes = torch.tensor([2.0**-i for i in range(1, heads + 1)]).view(-1, 1, 1)
        bias = slopes * (torch.arange(size) - torch.arange(size).view(-1, 1))
        mask = (full + bias).to(dtype)
        bias = mask.float() - full
        torch.ops.atb._npu_flash_attention_v2.out(*inputs, lengths, mask=mask.npu(), mask_type=2, **common)
    else:
        torch_npu._npu_flash_attention_unpad(*inputs, seq_len=seq_len, **common)
    parts = [tensor.split(lengths) for tensor in (query, key, value)]
    expected = []
    for length, *tensors in zip(lengths, *parts, strict=True):
        mask = None if variant == "unpad" else reference.causal_mask(length, length)
        if bias is not None:
            mask = mask + bias[:, :length, :length]
        expected.append(reference.attention(*tensors, 0.125, mask))
    return reference.worst(out, torch.cat(expected))


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("variant", ["compressed", "fractal mask", "unpad"])
def test_prompts_on_atlas_inference(npu: Npu, variant: str) -> None:
    assert npu.call(prompt, variant) < TOLERANCE["float16"]


@pytest.mark.chips("310P3")
def test_a_compressed_mask_serves_prompts_longer_than_itself(npu: Npu) -> None:
    assert npu.call(prompt, "compressed", lengths=[2200]) < TOLERANCE["float16"]


@pytest.mark.chips("310P3")
@pytest.mark.parametrize("variant", ["compressed", "fractal mask"])
def test_the_mask_is_read_not_assumed(npu: Npu, variant: str) -> None:
    assert npu.call(prompt, variant, masks_future=False) > 100 * TOLERANCE["float16"]


@pytest.mark.chips("910B3")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", ["row-major mask", "unpad"])
def test_prompts_on_a2(npu: Npu, variant: str, dtype: str) -> None:
    assert npu.call(prompt, variant, dtype) < TOLERANCE[dtype]


@pytest.mark.chips("910B3")
def test_alibi(npu: Npu) -> None:
    assert npu.call(prompt, "alibi") < 5e-3
