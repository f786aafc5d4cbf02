"""What vLLM 0.33 changed under an out-of-tree platform on the V1 runner, point by point (docs/upgrading-vllm.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ascend_emulator.pytest_plugin import Npu

import ascend_plugin
from tests.upstream.source import file_of, text_of

PLUGIN = Path(ascend_plugin.__file__).parent
GDN = "vllm.model_executor.layers.mamba.gdn.qwen_gdn_linear_attn.QwenGatedDeltaNetAttention"


def imports_at_once(module: str, seen: set[str]) -> set[str]:
    """Modules that importing this one of ours imports, itself left out; imports inside functions do not count."""
    if module in seen:
        return seen
    seen.add(module)
    path = file_of(module)
    assert path is not None
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("ascend_plugin") and file_of(name) is not None:
                imports_at_once(name, seen)
            elif name.startswith("vllm"):
                seen.add(name)
    return seen


def test_the_platform_imports_nothing_that_asks_for_the_platform() -> None:
    """PIN_MEMORY asks current_platform at the end of torch_utils: to import that from the platform is a circle."""
    imported = imports_at_once("ascend_plugin.platform", set()) | imports_at_once("ascend_plugin", set())
    assert not [name for name in imported if name.startswith("vllm.utils")]
    assert "PIN_MEMORY" in text_of("vllm.utils.torch_utils")


@pytest.mark.parametrize("first", ["vllm.utils.torch_utils", "vllm.platforms", "vllm"])
def test_whatever_is_imported_first_the_platform_is_ours(first: str) -> None:
    script = f"import {first}\nfrom vllm.platforms import current_platform\nprint(type(current_platform).__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ["AscendPlatform"], done.stderr[-2000:]


def test_no_descriptor_is_not_taken_for_eager_mode() -> None:
    """Eager steps have a BatchDescriptor too: what tells them apart is the graph mode."""
    compared = [
        ast.unparse(node)
        for path in PLUGIN.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)
    ]
    assert not [text for text in compared if "batch_descriptor" in text]


def test_recurrent_layers_have_no_checkpoint_alignment() -> None:
    """Then pages of hybrid models are no multiples of one; only FlashInfer's prefill asks for it."""
    code = text_of(f"{GDN}.__init__")
    assert "self._checkpoint_alignment: int | None = None" in code
    assert "self.gdn_prefill_backend == 'flashinfer'" in code
    assert text_of(f"{GDN}.get_prefill_checkpoint_alignment").endswith("return self._checkpoint_alignment")
    assert not [path for path in PLUGIN.rglob("*.py") if "gdn_prefill_backend" in path.read_text()]


def is_cuda() -> bool:
    return torch.empty(1, device="npu").is_cuda


@pytest.mark.chips("310P3")
def test_npu_tensors_are_no_cuda_tensors(npu: Npu) -> None:
    assert npu.call(is_cuda) is False
    assert "is_cuda" in text_of("vllm.v1.attention.backends.utils.mamba_get_block_table_tensor")


def test_gated_norms_take_torch_s_form() -> None:
    """CustomOp's default for an out-of-tree platform, which RMSNormGated does not change."""
    assert text_of("vllm.model_executor.custom_op.CustomOp.forward_oot").endswith(
        "return self.forward_native(*args, **kwargs)"
    )
    assert "def forward_oot" not in text_of("vllm.model_executor.layers.layernorm.RMSNormGated")


def test_attention_s_new_hooks_do_nothing_by_default() -> None:
    backend = text_of("vllm.v1.attention.backend.AttentionBackend")
    assert "supports_kv_cache_update_bypass: bool = False" in backend
    ours = "".join(path.read_text() for path in (PLUGIN / "attention").glob("*.py"))
    assert "supports_kv_cache_update_bypass" not in ours
    assert "def reserve_workspace(self) -> None:\n        return" in text_of("vllm.v1.attention.backend")
