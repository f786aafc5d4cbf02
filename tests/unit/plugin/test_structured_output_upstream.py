"""Our grammar masks beside vLLM's own function on the CPU: the layout of the mask is vLLM's to choose."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.structured_output.utils import apply_grammar_bitmask as upstream_apply

from ascend_plugin.ops import structured_output

VOCABULARY = 70


@st.composite
def steps(draw: st.DrawFn) -> tuple[SimpleNamespace, SimpleNamespace, SimpleNamespace, int]:
    """A step: its scheduler output, grammar output and batch, and the rows of its logits.

    Each constrained request has a block of 1 + most_drafts rows in the mask, of which it uses one and one a draft.
    """
    batch = [f"r{i}" for i in range(draw(st.integers(1, 5)))]
    most_drafts = draw(st.integers(0, 3))
    drafts = {name: [0] * draw(st.integers(1, most_drafts)) for name in batch if most_drafts and draw(st.booleans())}
    constrained = draw(st.lists(st.sampled_from(batch), unique=True, min_size=1)) + draw(
        st.sampled_from([[], ["gone"]])
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = len(constrained) * (1 + most_drafts)
    bitmask = rng.integers(-(2**31), 2**31, (rows, -(-VOCABULARY // 32))).astype(np.int32)
    grammar = SimpleNamespace(grammar_bitmask=bitmask, structured_output_request_ids=constrained)
    scheduled = SimpleNamespace(scheduled_spec_decode_tokens=drafts)
    return scheduled, grammar, SimpleNamespace(req_ids=batch), len(batch) + sum(map(len, drafts.values()))


@given(steps())
@settings(max_examples=200, deadline=None)
def test_masks_are_those_of_vllm(step: tuple[SimpleNamespace, SimpleNamespace, SimpleNamespace, int]) -> None:
    scheduled, grammar, batch, rows = step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        patch.setattr("vllm.v1.structured_output.utils.PIN_MEMORY", False)
        logits = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0))
        ours, theirs = logits.clone(), logits.clone()
        structured_output.apply_grammar_bitmask(scheduled, grammar, batch, ours)
        upstream_apply(scheduled, grammar, batch, theirs)
    assert torch.equal(ours, theirs)
