"""Errors of missing kernels become one sentence; any other error stays as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ascend_facts.refused import refusal
from ascend_plugin.missing_kernels import UnsupportedModel, explained


def test_an_operator_that_nobody_registered() -> None:
    with (
        pytest.raises(UnsupportedModel, match=r"Odd calls torch\.ops\._moe_C\.topk_sigmoid, which no Ascend"),
        explained("Odd"),
    ):
        torch.ops._moe_C.topk_sigmoid(torch.ones(1))


def test_a_library_that_is_not_there() -> None:
    with pytest.raises(UnsupportedModel, match=r"flashinfer.s kernels"), explained("Odd"):
        import flashinfer  # noqa: F401


def test_a_call_that_ends_inside_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "ends_here.py").write_text("def launch():\n    raise TypeError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "triton"))
    import ends_here

    with (
        pytest.raises(UnsupportedModel, match=r"a Triton kernel \(test_missing_kernels\.py, test_a_call"),
        explained("Odd"),
    ):
        ends_here.launch()
    del sys.modules["ends_here"]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), explained("Odd"):
        raise RuntimeError("out of memory")


def test_what_is_known_not_to_run_is_refused_by_name() -> None:
    sentence = refusal("DeepseekV32ForCausalLM")
    assert sentence is not None and sentence.startswith("Use another model, such as DeepSeek-V3.1")
    assert refusal("LlamaForCausalLM") is None
