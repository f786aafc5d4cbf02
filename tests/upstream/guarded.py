"""The names of vLLM that the plugin replaces, overrides or reaches into, found in the plugin itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.upstream.source import Missing, look_up

RECORD = Path(__file__).with_name("guarded.json")
SRC = Path(__file__).resolve().parents[2] / "src"

# Private names of vLLM that are called or read, by what of ours does.
REACHED_INTO = {
    "vllm.model_executor.layers.quantization.auto_awq._convert_awq_to_standard_format": (
        "ascend_plugin.quantization.weight_only.AscendAwqLinear"
    ),
    "vllm.model_executor.layers.quantization.auto_awq.AutoAWQMarlinLinearMethod.__init__": (
        "ascend_plugin.quantization.weight_only.AscendAwqLinear"
    ),
    "vllm.model_executor.layers.quantization.auto_gptq.get_moe_quant_method": (
        "ascend_plugin.quantization.configs.AscendGptqConfig"
    ),
    "vllm.model_executor.layers.quantization.utils.gptq_utils.get_linear_quant_method": (
        "ascend_plugin.quantization.configs.AscendGptqConfig"
    ),
    "vllm.model_executor.layers.quantization.register_quantization_config": (
        "ascend_plugin.quantization.register_layers"
    ),
    "vllm.model_executor.kernels.linear.register_linear_kernel": "ascend_plugin.quantization.register_kernels",
    "vllm.model_executor.kernels.linear._POSSIBLE_INT8_KERNELS": "ascend_plugin.quantization.register_kernels",
    "vllm.model_executor.models.utils.AutoWeightsLoader._load_param": "ascend_plugin.log.hide_announced_conversions",
    "vllm.model_executor.utils.replace_parameter": "ascend_plugin.ops.moe.AscendFusedMoEMethod",
    "vllm.utils.torch_utils.current_stream": "ascend_plugin.compat.torch_cuda",
    "vllm.utils.torch_utils._current_stream_tls": "ascend_plugin.compat.torch_cuda",
    "vllm.v1.sample.sampler.Sampler.sample": "ascend_plugin.ops.sampling.AscendTopKTopPSampler",
    "vllm.v1.sample.ops.topk_topp_sampler.TopKTopPSampler": "ascend_plugin.ops.sampling.AscendTopKTopPSampler",
    "vllm.v1.attention.backends.utils.mamba_get_block_table_tensor": (
        "ascend_plugin.runner.packed_inputs.PackedInputs._fill_states"
    ),
    "vllm.v1.sample.ops.topk_topp_sampler.apply_top_k_top_p": "ascend_plugin.ops.sampling.keep_top",
    "vllm.v1.sample.rejection_sampler.RejectionSampler.forward": "ascend_plugin.ops.sampling._verify_with",
    "vllm.v1.sample.rejection_sampler.apply_sampling_constraints": "ascend_plugin.ops.sampling._verify_with",
    "vllm.v1.sample.rejection_sampler.generate_uniform_probs": "ascend_plugin.ops.sampling._verify_with",
    "vllm.v1.sample.rejection_sampler.rejection_sample": "ascend_plugin.ops.sampling._verify_with",
    "vllm.v1.sample.rejection_sampler.sample_recovered_tokens": "ascend_plugin.ops.sampling._verify_with",
    "vllm.v1.sample.sampler.Sampler.gather_logprobs": "ascend_plugin.ops.sampling.gather_logprobs",
    "vllm.v1.worker.gpu_input_batch.InputBatch.condense": "ascend_plugin.runner.accepted",
    "vllm.v1.worker.gpu_input_batch.InputBatch.swap_states": "ascend_plugin.runner.accepted",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._bookkeeping_sync": "ascend_plugin.ops.noise.GENERATOR_STEP",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._calc_mrope_positions": (
        "ascend_plugin.runner.packed_inputs.PackedInputs.prepare"
    ),
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._calc_spec_decode_metadata": (
        "ascend_plugin.runner.fill.fill_verification"
    ),
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._compute_prev_positions": "ascend_plugin.runner.packed_inputs",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._prepare_input_ids": "ascend_plugin.runner.fill",
    "vllm.v1.worker.mamba_utils.postprocess_mamba_align_gpu": "ascend_plugin.cache.recurrent_state.BlockEnds",
    "vllm.v1.worker.mamba_utils.preprocess_mamba": (
        "ascend_plugin.cache.recurrent_state.DraftedStates.run_fused_precopy"
    ),
    "vllm.v1.worker.mamba_utils.stage_postprocess_inputs_to_gpu": (
        "ascend_plugin.cache.recurrent_state.DraftedStates.block_ends"
    ),
    "vllm.v1.structured_output.utils.apply_grammar_bitmask": "ascend_plugin.ops.structured_output",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner.execute_model": "ascend_plugin.runner.model_runner",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner.load_model": "ascend_plugin.runner.model_runner",
    "vllm.v1.worker.gpu_worker.Worker._compile_or_warm_up_model": "ascend_plugin.compat.kernel_warmup",
    "vllm.v1.worker.gpu_worker.Worker.init_device": "ascend_plugin.worker.AscendWorker.init_device",
    "vllm.model_executor.warmup.kernel_warmup.kernel_warmup": "ascend_plugin.compat.kernel_warmup",
    "vllm.model_executor.layers.linear.LinearBase.__init__": "ascend_plugin.compat.linear_methods",
    "vllm.platforms.interface.Platform.update_block_size_for_backend": "ascend_plugin.platform",
}


@dataclass(frozen=True)
class Guard:
    """A name of vLLM as it was when somebody last read it, and what of ours depends on it."""

    ours: str
    signature: str
    digest: str


def names() -> dict[str, str]:
    """Every guarded name of vLLM -> what of ours depends on it."""
    found = dict(REACHED_INTO)
    found.update(_patched())
    found.update(_kernels())
    for module in _modules():
        found.update(_overridden(module))
    return dict(sorted(found.items()))


def _patched() -> Iterator[tuple[str, str]]:
    from ascend_plugin import compat

    for patch in compat.PATCHES:
        for name in patch.replaces:
            if name.startswith("vllm.") and not name.endswith(".quant_method"):
                yield name, f"ascend_plugin.compat.{patch.file}"


def _kernels() -> Iterator[tuple[str, str]]:
    from ascend_plugin.kernels import OVERRIDES

    for name, ours in OVERRIDES.items():
        yield name, f"{ours.__module__}.{ours.__name__}"


def _modules() -> Iterator[Any]:
    import ascend_plugin

    for info in pkgutil.walk_packages(ascend_plugin.__path__, "ascend_plugin."):
        yield importlib.import_module(info.name)


def _overridden(module: Any) -> Iterator[tuple[str, str]]:
    """Methods of vLLM's classes that classes of this module override, and the classes themselves."""
    for ours in vars(module).values():
        if not inspect.isclass(ours) or ours.__module__ != module.__name__:
            continue
        bases = [base for base in ours.__mro__[1:] if base.__module__.startswith("vllm.")]
        for name, value in vars(ours).items():
            if not isinstance(value, FunctionType | classmethod | staticmethod | property) or _is_generated(value):
                continue
            definer = next((base for base in bases if name in vars(base)), None)
            if definer is not None:
                yield (
                    f"{definer.__module__}.{definer.__qualname__}.{name}",
                    f"{ours.__module__}.{ours.__qualname__}.{name}",
                )


def _is_generated(value: Any) -> bool:
    """Whether dataclasses wrote it, or typing did for a class of a protocol."""
    if getattr(value, "__module__", "") == "typing":
        return True
    return isinstance(value, FunctionType) and inspect.unwrap(value).__code__.co_filename.startswith("<")


def read_record() -> dict[str, Guard]:
    return {name: Guard(**entry) for name, entry in json.loads(RECORD.read_text()).items()} if RECORD.exists() else {}


def write_record(guards: dict[str, Guard]) -> None:
    RECORD.write_text(json.dumps({name: asdict(guards[name]) for name in sorted(guards)}, indent=1) + "\n")


def guard_of(name: str, ours: str) -> Guard:
    """Raises Missing."""
    source = look_up(name)
    return Guard(ours, source.signature, source.digest)


def difference(name: str, guard: Guard) -> str | None:
    """One sentence on what moved and where to look; None if nothing did."""
    try:
        source = look_up(name)
    except Missing as missing:
        return f"{missing}. Look for what took its place, and at {guard.ours}, which depends on it."
    if source.digest == guard.digest:
        return None
    moved = "its code changed"
    if source.signature != guard.signature:
        moved = f"its signature was {guard.signature} and is {source.signature}"
    return (
        f"{name} moved: {moved}. Compare {source.place} with {guard.ours}; when both agree run "
        f"`python -m tests.upstream --accept {name}`."
    )


def imported_names() -> Iterator[tuple[str, str]]:
    """(file of ours, dotted name of vLLM) for every name of vLLM that src/ imports."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                yield from ((str(path.relative_to(SRC)), f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (
                    (str(path.relative_to(SRC)), alias.name)
                    for alias in node.names
                    if alias.name.split(".")[0] == "vllm"
                )
