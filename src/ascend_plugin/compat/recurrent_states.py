"""The state of a gated delta net is copied between cache blocks by indexing tensors, and Triton is told nothing of it.

Reason: with prefix caching vLLM moves states with a Triton kernel that takes lists of raw device addresses, so that
the registry of Triton kernels' stand-ins cannot help. OLMo Hybrid's layer gives Triton an allocator while it is made,
which vLLM's stand-in for Triton has no function for.
Upstream: vllm/v1/worker/mamba_utils.py collect_mamba_copy_meta, do_mamba_copy_block and, under speculation,
MambaSpecDecodeGPUContext (cache mode "align"); vllm/model_executor/layers/mamba/gdn/olmo_gdn_linear_attn.py.
Held by: tests/upstream/test_patches.py, tests/models/test_drafted_states.py.
Exit: when the copies go through a function that a platform can replace, and that layer asks whether Triton is there.
"""

from __future__ import annotations

from typing import Any


def apply() -> None:
    from vllm.v1.worker import mamba_utils

    from ascend_plugin.cache import recurrent_state

    module: Any = mamba_utils  # names of it are replaced, which mypy holds to what they were
    module.collect_mamba_copy_meta = recurrent_state.collect_copies
    module.do_mamba_copy_block = recurrent_state.copy_blocks
    module.MambaSpecDecodeGPUContext = recurrent_state.DraftedStates


def apply_to_layers() -> None:
    """The same for the module of OLMo Hybrid's layer, which only models with recurrent layers import."""
    from vllm.model_executor.layers.mamba.gdn import olmo_gdn_linear_attn

    module: Any = olmo_gdn_linear_attn
    module.set_triton_allocator = lambda device: None
