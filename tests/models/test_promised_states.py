"""What recurrent layers promise the scheduler about their states, they keep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.v1.kv_cache_interface import MambaSpec

from ascend_plugin.ops.gated_delta_net import AscendGatedDeltaNet, AscendOlmoHybrid
from ascend_plugin.ops.mamba import REPLACED

LAYERS = [*REPLACED.values(), AscendGatedDeltaNet, AscendOlmoHybrid]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_no_state_is_promised_from_within_a_step(layer: Any) -> None:
    """Where one is, the scheduler ends no step at the block that the prefix cache will hand out: nobody writes it."""

    class Small(layer):
        mamba_type, is_kv_cache_tp_replicated = "mamba2", False
        _exports_checkpoints = False  # of the delta nets, whose kernel for it is FlashInfer's

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def get_state_shape(self) -> tuple[tuple[int, ...], ...]:
            return ((3, 4),)

        def get_state_dtype(self) -> tuple[torch.dtype, ...]:
            return (torch.float32,)

    cache = SimpleNamespace(
        mamba_block_size=128, mamba_page_size_padded=None, mamba_cache_mode="align", use_replayssm=False
    )
    spec = Small().get_kv_cache_spec(SimpleNamespace(cache_config=cache, num_speculative_tokens=0))
    assert isinstance(spec, MambaSpec)
    assert (spec.num_prefill_checkpoint_blocks, spec.prefill_checkpoint_alignment) == (0, None)
