"""gpt-oss's experts become the numbers that transformers makes of them."""

from __future__ import annotations

import torch

from ascend_plugin.quantization.mxfp4_experts import BLOCK, numbers


def test_every_pair_of_bits_and_scale_is_the_number_of_transformers() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    bits = torch.arange(256, dtype=torch.uint8).repeat(2).view(4, -1)  # every byte, in rows of four blocks of 16 bytes
    scales = torch.tensor([127, 120, 130, 118, 126, 127, 128, 129] * 4, dtype=torch.uint8).view(4, -1)
    found = numbers(bits, scales)
    by_block = bits.view(1, 4, -1, BLOCK // 2)
    expected = convert_moe_packed_tensors(by_block, scales.unsqueeze(0), dtype=torch.float32)
    assert torch.equal(found, expected[0].T if expected[0].shape != found.shape else expected[0])
