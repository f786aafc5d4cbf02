"""Each patch of ascend_plugin.compat is written down, and still needed by the vLLM that is installed.

A test here that fails after an upgrade is good news: read the patch's Exit line and take the patch away.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ascend_plugin import compat
from ascend_plugin.compat.expert_routing import UNGATED
from ascend_plugin.compat.torchvision import FAKE_FORMS
from tests.upstream.source import file_of, text_of

MOST_PATCHES = 9
FOLDER = Path(compat.__file__).parent
LAYERS = "vllm.model_executor.layers"


def test_the_table_has_every_file_and_no_more_than_were_agreed() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert {patch.file for patch in compat.PATCHES} == files
    assert len(compat.PATCHES) <= MOST_PATCHES


@pytest.mark.parametrize("patch", compat.PATCHES, ids=lambda patch: patch.file)
def test_a_patch_says_why_where_what_holds_it_and_when_it_can_go(patch: compat.Patch) -> None:
    text = ast.get_docstring(ast.parse((FOLDER / f"{patch.file}.py").read_text())) or ""
    for heading in ("Reason: ", "Upstream: ", "Held by: ", "Exit: "):
        assert re.search(rf"^{heading}\w", text, re.MULTILINE), f"{patch.file} has no {heading.strip()}"
    root = FOLDER.parents[2]
    for path in re.findall(r"tests/[\w/.]+\w", text):
        assert (root / path).exists(), path


def test_nothing_outside_of_compat_sets_a_name_of_vllm() -> None:
    """Assignments to attributes of vLLM's or torch's modules and classes, outside of compat/."""
    found = []
    for path in FOLDER.parent.rglob("*.py"):
        if path.parent == FOLDER:
            continue
        tree = ast.parse(path.read_text())
        foreign = {
            alias.asname or alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            and (getattr(node, "module", None) or node.names[0].name).split(".")[0] in ("vllm", "torch", "transformers")
            for alias in node.names
        }
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value).split(".")[0] in foreign:
                    found.append(f"{path.name}:{node.lineno} {ast.unparse(target)}")
    assert found == []


def test_torchvision_beside_the_cpu_build_imports_with_its_fake_forms_left_out_only() -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    use = (
        "import torch, torchvision\n"
        "from torchvision.transforms.v2 import functional\n"
        "print(tuple(functional.resize(torch.zeros(3, 8, 8, dtype=torch.uint8), [4, 2]).shape))\n"
    )
    patched = (
        "import sys\n"
        "from ascend_plugin.compat import torchvision as patch\n"
        "patch.apply(); patch.apply()\n"
        "assert not {'torch', 'torchvision'} & sys.modules.keys(), 'applying it must import nothing'\n"
    )
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    options = {"capture_output": True, "text": True, "check": False, "env": environment}
    bare = f"import sys; sys.modules.pop('{FAKE_FORMS}', None)\n"  # without what set-up left out
    scripts = (use, bare + patched + use, bare + use)
    as_set_up, ours, broken = (subprocess.run([sys.executable, "-c", script], **options) for script in scripts)
    for done in (as_set_up, ours):
        assert done.stdout.splitlines()[-1:] == ["(3, 4, 2)"], done.stderr[-2000:]
    assert "torchvision::nms does not exist" in broken.stderr, "torchvision imports by itself: take the patch away"


def test_torchvision_is_needed() -> None:
    imports = "from transformers.models.qwen2_vl.image_processing_qwen2_vl import"
    assert any(imports in text_of(f"vllm.model_executor.models.{name}") for name in ("qwen2_vl", "qwen3_vl"))
    replaced = file_of("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    assert replaced is not None and re.search(r"^(from|import) torchvision", replaced.read_text(), re.MULTILINE)


def test_torchvision_stand_in_has_the_function() -> None:
    script = (
        "import sys, importlib.util\n"
        "from ascend_plugin.compat import torchvision\n"
        "assert importlib.util.find_spec('torchvision') is None\n"
        "torchvision.apply(); torchvision.apply()\n"
        "assert 'transformers' not in sys.modules, 'applying it must import nothing'\n"
        "from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize\n"
        "print(smart_resize(100, 200))\n"
    )
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "(112, 196)"  # multiples of 28


def test_server_steps_is_needed() -> None:
    asked = set(re.findall(r"current_platform\.(\w+)", text_of("vllm.engine.arg_utils.EngineArgs.get_batch_defaults")))
    known = {"get_device_total_memory", "get_device_name", "is_device_capability", "is_tpu", "is_cpu", "is_xpu"}
    assert asked <= known, "get_batch_defaults asks the platform something new: it may be the hook that is missing"


def test_torch_cuda_is_needed() -> None:
    runner = text_of("vllm.v1.worker.gpu_model_runner")
    assert re.search(r"torch\.cuda\.(Stream|Event|stream)\(", runner)


def test_kernel_warmup_is_needed() -> None:
    body = text_of("vllm.model_executor.warmup.kernel_warmup.kernel_warmup").splitlines()
    assert any(line.startswith("    qwen_triton_warmup(") for line in body), "it asks before it warms Triton kernels up"
    assert "    kernel_warmup(self)" in text_of("vllm.v1.worker.gpu_worker.Worker._compile_or_warm_up_model")


def test_expert_routing_is_needed() -> None:
    router = f"{LAYERS}.fused_moe.router.fused_topk_router"
    assert "ops.topk_softmax(" in text_of(f"{router}.vllm_topk_softmax")
    assert text_of(f"{router}.fused_topk").startswith("def fused_topk("), "it is a CustomOp now: register ours with it"
    assert "fused_topk(" in text_of(f"{router}.FusedTopKRouter._compute_routing")


def test_experts_without_gate_or_weights_need_it() -> None:
    last = text_of(f"{LAYERS}.fused_moe.config.FusedMoEConfig.__post_init__").rstrip().splitlines()[-2:]
    assert last[0].startswith("    if not self.is_act_and_mul and ") and UNGATED in last[1], "it is not the last check"
    zeros = text_of(f"{LAYERS}.fused_moe.fused_moe.zero_experts_compute_triton")
    assert "compute_identity_kernel[grid](" in zeros
    assert "zero_experts_compute_triton(" in text_of(f"{LAYERS}.fused_moe.router.zero_expert_router")


def test_choice_by_bias_is_needed() -> None:
    routers = f"{LAYERS}.fused_moe.router"
    assert "ops.topk_sigmoid(" in text_of(f"{routers}.fused_topk_bias_router.vllm_topk_sigmoid")
    for name in ("fused_topk_bias_router", "grouped_topk_router", "zero_expert_router"):
        assert "fused_topk_bias(" in text_of(f"{routers}.{name}").replace("def fused_topk_bias(", "")


def test_loading_the_bias_of_the_choice_is_needed() -> None:
    loads = text_of(f"{LAYERS}.fused_moe.routed_experts.RoutedExperts.load_weights")
    assert "e_score_correction_bias" not in loads and "default_weight_loader" not in loads
    assert "e_score_correction_bias=e_score_correction_bias" in text_of("vllm.model_executor.models.laguna.LagunaMoE")


def test_embeddings_of_layers_are_needed() -> None:
    model = "vllm.model_executor.models.gemma3n.Gemma3nForCausalLM"
    assert "per_layer_inputs=per_layer_inputs" in text_of(f"{model}.forward")
    assert "get_per_layer_input_embeddings" not in text_of(model), "take ascend_plugin.models.gemma3n away"


def test_the_bias_of_the_output_matrix_is_needed() -> None:
    model = "vllm.model_executor.models.phimoe.PhiMoEForCausalLM"
    assert "bias=True" in text_of(f"{model}.__init__")
    assert "bias" not in text_of(f"{model}.compute_logits"), "take ascend_plugin.models.phimoe away"


def test_routed_scale_is_needed() -> None:
    scale = text_of(f"{LAYERS}.fused_moe.runner.moe_runner.MoERunner._maybe_apply_routed_scale_to_output")
    assert "shared_output *= 1.0 / self.routed_scaling_factor" in scale


def test_the_decoder_layers_that_make_up_for_the_factor_are_known() -> None:
    from ascend_plugin.ops.moe_runner import COMPENSATING, NORMED

    folder = file_of("vllm.model_executor.models.registry")
    assert folder is not None
    dividing = "1.0 / self.routed_scaling_factor"
    found = {
        node.name
        for path in folder.parent.glob("*.py")
        if dividing in (text := path.read_text(encoding="utf-8"))
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and dividing in (ast.get_source_segment(text, node) or "")
    }
    assert {name for name in found if name.endswith("DecoderLayer")} == {*COMPENSATING, *NORMED}


def test_recurrent_states_is_needed() -> None:
    assert "batch_memcpy" in text_of("vllm.v1.worker.mamba_utils.do_mamba_copy_block")
    assert "data_ptr()" in text_of("vllm.v1.worker.mamba_utils.collect_mamba_copy_meta")
    layer = text_of(f"{LAYERS}.mamba.gdn.olmo_gdn_linear_attn.OlmoHybridGatedDeltaNetAttention.__init__")
    assert "set_triton_allocator(" in layer and "dtype=config.torch_dtype" in layer


def test_olmo_hybrids_convolution_is_loaded_in_parts() -> None:
    """vLLM's loader wants the part's number, and AutoWeightsLoader gives a parameter none."""
    from vllm.model_executor.layers.mamba.gdn.olmo_gdn_linear_attn import _make_fused_conv1d_weight_loader

    from ascend_plugin.ops.gated_delta_net import told_by_weight

    whole = torch.zeros(4, 1, 2)
    load = _make_fused_conv1d_weight_loader([1, 1, 2], tp_size=1, tp_rank=0)
    for part, rows in enumerate((1, 1, 2)):
        weight: Any = torch.full((rows, 1, 2), part + 1.0)
        weight.shard_id = part
        with pytest.raises(TypeError):
            load(whole, weight)
        told_by_weight(load)(whole, weight)
    assert whole[:, 0, 0].tolist() == [1.0, 2.0, 3.0, 3.0]
    assert "weight_loader(param, weight_data)" in text_of(
        "vllm.model_executor.models.utils.AutoWeightsLoader._load_param"
    )


def test_olmo_hybrids_layer_asks_nothing_of_triton() -> None:
    from vllm.model_executor.layers.mamba.gdn import olmo_gdn_linear_attn

    from ascend_plugin import compat

    compat.prepare_recurrent_layers()
    olmo_gdn_linear_attn.set_triton_allocator(None)  # vLLM's ends with "no attribute 'set_allocator'"


def test_linear_methods_is_needed() -> None:
    assert "UnquantizedLinearMethod()" in text_of(f"{LAYERS}.linear.LinearBase.__init__")
    asked = set(re.findall(r"current_platform\.(\w+)", text_of(f"{LAYERS}.utils.dispatch_unquantized_gemm")))
    assert asked <= {"is_rocm", "is_cpu", "is_xpu", "is_cuda", "is_cuda_alike", "is_tpu", "is_arch_support_pdl"}


def test_module_dispatch_is_needed() -> None:
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl
    assert "__getattr__" in vars(nn.Module), "submodules are found without a fallback now"


def test_nothing_that_leaves_with_0_34_is_used() -> None:
    leaving = re.compile(r"vllm\.ir\b|from vllm import ir\b|ir_op_priority|import_ir_kernels|IrOpPriority")
    found = [path.name for path in FOLDER.parent.rglob("*.py") if leaving.search(path.read_text())]
    assert found == []


def test_picture_positions_is_needed() -> None:
    """Upstream still makes places on the device, picture by picture."""
    text = text_of("vllm.model_executor.models.qwen3_vl.pos_embed_interpolate_native")
    assert "device=device" in text and "h_floor + 1" in text
    loop = text_of("vllm.model_executor.models.qwen3_vl.Qwen3_VisionTransformer.fast_pos_embed_interpolate")
    assert re.search(r"for t, h, w in grid_thw:\n\s+outputs.append", loop)
