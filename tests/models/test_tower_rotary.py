"""How Llama 4's tower turns queries and keys by their places in a picture, against vLLM's complex numbers."""

from __future__ import annotations

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

SIDE, HEADS, SIZE = 4, 2, 64
ARGUMENTS = (SIZE, SIZE // 2, SIDE**2, 10000.0, False, torch.complex64)  # as vLLM's get_rope makes it for the tower


def by_complex_numbers() -> list[torch.Tensor]:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.llama4_vision_rope import Llama4VisionRotaryEmbedding

    with set_current_vllm_config(VllmConfig()):
        layer = object.__new__(Llama4VisionRotaryEmbedding)
        Llama4VisionRotaryEmbedding.__init__(layer, *ARGUMENTS)
    return [part.float() for part in layer.forward_native(*draw())]


def draw() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(3, SIDE**2 + 1, HEADS, SIZE, generator=generator).half() for _ in range(2)]


def on_the_chip() -> list[torch.Tensor]:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    from ascend_plugin import ops

    ops.register_custom_ops()
    parameters = {"rope_type": "mllama4", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    with set_current_vllm_config(VllmConfig()), torch.device("npu"):
        rope = get_rope(SIZE, SIDE**2, is_neox_style=False, rope_parameters=parameters, dtype=torch.complex64)
    turned = rope(*(part.npu() for part in draw()))
    assert all(part.device.type == "npu" and part.dtype == torch.float16 for part in turned)
    return [part.cpu().float() for part in turned]


def largest_error() -> float:
    pairs = zip(on_the_chip(), by_complex_numbers(), strict=True)
    return max(float((found - wanted).abs().max()) for found, wanted in pairs)


@pytest.mark.chips("310P3", "910B3")
def test_pairs_are_turned_without_complex_numbers(npu: Npu) -> None:
    assert npu.call(largest_error) < 2e-3
