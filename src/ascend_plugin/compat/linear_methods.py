"""Loaded linear layers and output matrices get methods of ours, with weights in the chip's layout.

Reason: vLLM creates an unquantized layer's method itself and asks no platform; CustomOp and PluggableLayer would
replace each of five layer classes instead of one method. A copy of a tied output matrix has no other place.
Upstream: vllm/model_executor/layers/linear.py LinearBase.__init__, UnquantizedLinearMethod.
Held by: tests/upstream/test_patches.py, tests/emulated/test_logits.py.
Exit: when dispatch_unquantized_gemm or UnquantizedLinearMethod asks the platform.
"""

from __future__ import annotations

import torch

from ascend_facts.chips import ChipSpec


def apply(model: torch.nn.Module, chip: ChipSpec) -> None:
    from ascend_plugin.ops import linear

    linear.prepare_weights(model, chip)
