"""Every change to vLLM that no official hook allows. Each says why, where upstream, and when it can go."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import logging
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec
    from ascend_plugin.ops.noise import HostNoise


def prepare_worker_process() -> None:
    """Patches that a worker needs before its model runner is created. Can be repeated."""
    _alias_torch_cuda()
    _skip_cuda_warmup()
    _route_by_fused_gating()
    _copy_recurrent_states_by_block()
    _mask_grammars_without_shifts()
    _leave_out_announced_conversions()
    _hold_weights_as_products_read_them()


def _alias_torch_cuda() -> None:
    """Point the torch.cuda names that vLLM's V1 runner uses on every device at torch.npu.

    Reason: gpu_model_runner.py and parallel_state.py name torch.cuda.Stream, Event and stream() directly.
    Reference: vllm/v1/worker/xpu_model_runner.py does the same for XPU.
    Exit: when the runner uses torch.Stream, torch.Event and torch.accelerator.
    """
    import torch
    from vllm.utils import torch_utils

    from ascend_plugin.streams import Event, current_stream

    if torch.cuda.Stream is torch.npu.Stream:
        return

    def set_stream(stream: Any) -> None:
        torch_utils._current_stream_tls.value = stream  # what vllm.utils.torch_utils.current_stream() returns
        torch.npu.set_stream(stream)

    class StreamContext:
        """`with torch.cuda.stream(s)`, keeping vLLM's own idea of the current stream right."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            self.previous = current_stream()
            if self.stream is not None:
                set_stream(self.stream)

        def __exit__(self, *_: object) -> None:
            set_stream(self.previous)

    torch.cuda.Stream = torch.npu.Stream
    torch.cuda.Event = Event
    torch.cuda.stream = StreamContext
    torch.cuda.set_stream = set_stream
    torch.cuda.current_stream = current_stream
    torch.cuda.default_stream = torch.npu.default_stream
    torch.cuda.is_current_stream_capturing = torch.npu.is_current_stream_capturing
    torch.cuda.graph_pool_handle = torch.npu.graph_pool_handle


def _skip_cuda_warmup() -> None:
    """Make the worker's kernel warm-up do nothing.

    Reason: it imports CUDA kernels and, through one of them, torchvision; nothing here is compiled at run time.
    Reference: vllm/model_executor/warmup/kernel_warmup.py.
    Exit: when kernel_warmup asks the platform first.
    """
    from vllm.v1.worker import gpu_worker

    gpu_worker.kernel_warmup = lambda worker: None


def _mask_grammars_without_shifts() -> None:
    """Apply grammar masks with operators that every chip has.

    Reason: the V1 runner calls xgrammar's kernel for the device, which shifts; Ascend 310P has no RightShift.
    Reference: vllm/v1/worker/gpu_model_runner.py sample_tokens.
    Exit: when the runner asks the platform, or xgrammar's torch kernel does without a shift.
    """
    from vllm.v1.worker import gpu_model_runner

    from ascend_plugin.ops import structured_output

    gpu_model_runner.apply_grammar_bitmask = structured_output.apply_grammar_bitmask


def sample_with(noise: HostNoise, chip: ChipSpec) -> None:
    """Count ranks without eight-byte sums; verify drafts with the host's random numbers where the chip draws none.

    Reason: Ascend 310P sums int64 over a vocabulary slowly if at all and hangs in exponential_ (vllm-ascend #8017);
    top-p's scatter over a vocabulary is work for its AI CPU.
    Reference: vllm/v1/sample/ops/logprobs.py; vllm/v1/sample/rejection_sampler.py, generate_uniform_probs,
    sample_recovered_tokens, apply_sampling_constraints.
    Exit: when these are methods of the samplers.
    """
    from vllm.v1.sample import rejection_sampler, sampler

    from ascend_plugin.ops import sampling

    sampler.batched_count_greater_than = sampling.count_greater
    if not chip.has_device_random:
        sampling.draw_verification_on_host(rejection_sampler, noise)


def _hold_weights_as_products_read_them() -> None:
    """Create the linear layers of a float32 model in float16 where the cube multiplies nothing wider.

    Reason: the operators would round the weights in every product, and float32 ones take twice the memory, while they
    are loaded too. Results are the same (see ops.linear.rounded_product).
    Reference: vllm/model_executor/layers/linear.py UnquantizedLinearMethod.create_weights.
    Exit: when a platform can say in which dtype a layer's weights are held.
    """
    import torch
    from vllm.config import get_current_vllm_config
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    from ascend_plugin import detection

    create = UnquantizedLinearMethod.create_weights
    if not detection.current_chip().rounds_float32_products or hasattr(create, "__wrapped__"):
        return

    @functools.wraps(create)
    def create_weights(
        self: Any,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **options: Any,
    ) -> None:
        if params_dtype == get_current_vllm_config().model_config.dtype == torch.float32:
            params_dtype = torch.float16
        sizes = input_size_per_partition, output_partition_sizes, input_size, output_size
        create(self, layer, *sizes, params_dtype, **options)

    UnquantizedLinearMethod.create_weights = create_weights


def _route_by_fused_gating() -> None:
    """Choose a token's experts with CANN's gating operator.

    Reason: vLLM's fused_topk calls a CUDA kernel, and the routers call that function directly.
    Reference: vllm/model_executor/layers/fused_moe/router/fused_topk_router.py.
    Exit: when fused_topk is a CustomOp, as GroupedTopk is.
    """
    from vllm.model_executor.layers.fused_moe.router import fused_topk_router, grouped_topk_router

    from ascend_plugin.ops import moe

    fused_topk_router.fused_topk = grouped_topk_router.fused_topk = moe.fused_topk


def _copy_recurrent_states_by_block() -> None:
    """Copy the state of a gated delta net between cache blocks by indexing tensors instead of by address.

    Reason: with prefix caching vLLM moves states with a Triton kernel that takes lists of raw device addresses.
    Reference: vllm/v1/worker/mamba_utils.py collect_mamba_copy_meta, do_mamba_copy_block and, under speculation,
    MambaSpecDecodeGPUContext (cache mode "align").
    Exit: when the copies go through a function that a platform can replace.
    """
    from vllm.v1.worker import mamba_utils

    from ascend_plugin.cache import recurrent_state

    mamba_utils.collect_mamba_copy_meta = recurrent_state.collect_copies
    mamba_utils.do_mamba_copy_block = recurrent_state.copy_blocks
    mamba_utils.MambaSpecDecodeGPUContext = recurrent_state.DraftedStates


def _leave_out_announced_conversions() -> None:
    """Say once that a bfloat16 checkpoint runs in float16, not for each of its weights.

    Reason: vLLM warns of every converted weight, hundreds of lines on each chip, after it has said that it casts.
    Reference: vllm/model_executor/models/utils.py AutoWeightsLoader._load_param; config/model.py _get_and_verify_dtype.
    Exit: when the conversion that --dtype asks for is no warning.
    """
    logging.getLogger("vllm.model_executor.models.utils").addFilter(_is_no_announced_conversion)


def _is_no_announced_conversion(record: logging.LogRecord) -> bool:
    if not str(record.msg).startswith("Attempted to load weight %s with dtype %s"):
        return True
    name, *dtypes = map(str, record.args or ())
    read_as_bits = name.endswith(".deq_scale")  # ModelSlim's, by quantization.modelslim_linear
    return not read_as_bits and dtypes[:2] != ["torch.bfloat16", "torch.float16"]


# ---------------------------------------------------------------------- before a configuration is made


def bound_server_steps() -> None:
    """A server's default of max_num_batched_tokens is the chip's, where the chip table has one. Can be repeated.

    Reason: vLLM chooses it by memory, TPU and CPU; a platform is asked when a user's choice can no longer be told
    from the default.
    Reference: vllm/engine/arg_utils.py EngineArgs.get_batch_defaults and the method below, which calls it.
    Exit: when get_batch_defaults asks the platform.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    set_defaults = EngineArgs._set_default_max_num_seqs_and_batched_tokens_args
    if hasattr(set_defaults, "__wrapped__"):
        return

    @functools.wraps(set_defaults)
    def set_with_chip(args: Any, usage_context: Any, model_config: Any, parallel_config: Any) -> None:
        left_open = args.max_num_batched_tokens is None
        set_defaults(args, usage_context, model_config, parallel_config)
        drafts = args.speculative_config is not None  # whose slots come on top
        if not left_open or drafts or not args.enable_chunked_prefill:
            return
        if usage_context is UsageContext.OPENAI_API_SERVER and args.performance_mode != "throughput":
            from ascend_plugin import configuration, detection

            bound = configuration.server_step_tokens(model_config, detection.current_chip())
            if bound:
                args.max_num_batched_tokens = min(args.max_num_batched_tokens, max(bound, args.max_num_seqs))

    EngineArgs._set_default_max_num_seqs_and_batched_tokens_args = set_with_chip


# ---------------------------------------------------------------------- patches at import


def install_import_patches() -> None:
    """Patch the modules of IMPORT_PATCHES once they are imported, without importing them now. Can be repeated."""
    if any(isinstance(finder, _PatchFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _PatchFinder())
    for name, patch in IMPORT_PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])


class _PatchFinder(importlib.abc.MetaPathFinder):
    """Lets the ordinary finders find a module and wraps its loader's exec_module."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in WITHOUT_TORCHVISION and importlib.util.find_spec("torchvision") is None:
            origin = importlib.util.find_spec(WITHOUT_TORCHVISION[name]).origin
            return importlib.util.spec_from_file_location(name, origin)
        patch = IMPORT_PATCHES.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _run_after_exec(spec.loader, patch)
                return spec
        return None


def _run_after_exec(loader: Any, patch: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        patch(module)

    loader.exec_module = exec_module


def _find_benchmark_tokenizer(module: ModuleType) -> None:
    """`vllm bench serve --model SERVED_NAME` takes the tokenizer from the server's model path.

    Reason: without --tokenizer it asks the Hugging Face hub for a repository called like the served name and fails.
    Reference: vllm/benchmarks/serve.py main_async, tokenizer_id = model_id.
    Exit: when upstream reads `root` from /v1/models for a named model as it does without --model.
    """
    main_async = module.main_async

    async def main_with_tokenizer(args: Any) -> Any:
        if args.model is not None and args.tokenizer is None and not args.skip_tokenizer_init:
            args.tokenizer = await _tokenizer_of_served_model(args)
        return await main_async(args)

    module.main_async = main_with_tokenizer


async def _tokenizer_of_served_model(args: Any) -> str | None:
    """The path that the server loaded the model from, if it serves args.model and the path exists here."""
    import os

    import aiohttp

    if os.path.isdir(args.model):
        return None
    base_url = args.base_url or f"http://{args.host}:{args.port}"
    headers = dict(item.split("=", 1) for item in args.header or [] if "=" in item)
    if key := os.environ.get("OPENAI_API_KEY"):
        headers.setdefault("Authorization", f"Bearer {key}")
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{base_url}/v1/models", headers=headers) as response,
        ):
            models = (await response.json()).get("data", [])
    except (aiohttp.ClientError, ValueError):
        return None
    roots = [model.get("root") for model in models if model.get("id") == args.model]
    return roots[0] if roots and roots[0] and os.path.isdir(roots[0]) else None


# Reason: vLLM's module of Qwen3.5, text models included, imports a function from transformers' module of torchvision
# image processors; the same function is in that of the PIL ones, and there is no torchvision without CUDA on PyPI.
# Reference: vllm/model_executor/models/qwen3_vl.py, smart_resize.
# Exit: when upstream imports it where it is used, or takes the PIL module's.
WITHOUT_TORCHVISION: dict[str, str] = {
    "transformers.models.qwen2_vl.image_processing_qwen2_vl": (
        "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    ),
}


def _read_awq_anywhere(module: ModuleType) -> None:
    """AWQ layers take their product from vLLM's registry of kernels, as on CPU and XPU.

    Reason: elsewhere AutoAWQConfig takes CUDA's kernels, and asks whether Marlin runs; experts have no registry.
    Reference: vllm/model_executor/layers/quantization/auto_awq.py get_quant_method, AutoAWQMarlinLinearMethod.
    Exit: when every platform's layers ask the registry.
    """

    def awq_linear(config: Any) -> Any:
        from ascend_plugin.quantization.weight_only import AscendAwqLinear

        return AscendAwqLinear(config)

    def awq_experts(config: Any, moe_config: Any) -> Any:
        from ascend_plugin.quantization.weight_only_experts import AwqExperts

        return AwqExperts(config, moe_config)

    module.verify_marlin_supported = lambda **_: None
    module.AutoAWQLinearMethod = awq_linear
    module.AutoAWQMoEMethod = awq_experts
    module.check_moe_marlin_supports_layer = lambda *_, **__: True  # so that the method above is asked for


def _read_gptq_anywhere(module: ModuleType) -> None:
    """GPTQ layers take their product from vLLM's registry of kernels without asking whether Marlin runs.

    Reason: AutoGPTQLinearMethod chooses from the registry, but first verifies that this is a CUDA device; experts
    have no registry.
    Reference: vllm/model_executor/layers/quantization/auto_gptq.py AutoGPTQLinearMethod.__init__.
    Exit: when that is asked of the kernel that was chosen.
    """

    def gptq_experts(config: Any, moe_config: Any) -> Any:
        from ascend_plugin.quantization.weight_only_experts import GptqExperts

        return GptqExperts(config, moe_config)

    module.verify_marlin_supported = lambda **_: None
    module.AutoGPTQMoEMethod = gptq_experts
    module.check_moe_marlin_supports_layer = lambda *_, **__: True


def _dequantize_fp8(module: ModuleType) -> None:
    """Layers and experts of fp8 checkpoints become those of the model's dtype while they are loaded.

    Reason: vLLM's methods requantize with CUDA operators, and hold tensors that most Ascend chips have no type for.
    Reference: vllm/model_executor/layers/quantization/fp8.py Fp8Config.get_quant_method.
    Exit: when that method goes through the registry of kernels alone, for chips with fp8 products.
    """

    def fp8_linear(config: Any) -> Any:
        from ascend_plugin.quantization.dequantized import DequantizedFp8Linear

        return DequantizedFp8Linear(config)

    def fp8_experts(config: Any, layer: Any) -> Any:
        from ascend_plugin.quantization.dequantized_experts import DequantizedFp8Experts

        return DequantizedFp8Experts(config, layer.moe_config)

    module.Fp8LinearMethod = fp8_linear
    module.Fp8MoEMethod = fp8_experts


def _inspect_models_in_forks(module: ModuleType) -> None:
    """What a model's class can do is found out in a fork of this process instead of in a new interpreter.

    Reason: the new one imports everything again, ten seconds of a CPU at the first start of each kind of model.
    Reference: vllm/model_executor/models/registry.py _LazyRegisteredModel.inspect_model_cls, _run_in_subprocess.
    Exit: when upstream forks where no device is open.
    """
    in_new_interpreter = module._run_in_subprocess

    def run(inspect: Callable[[], Any]) -> Any:
        import torch

        from ascend_plugin.forked import in_fork

        return in_new_interpreter(inspect) if torch.npu.is_initialized() else in_fork(inspect)

    module._run_in_subprocess = run


def _register_delta_net(module: ModuleType) -> None:
    """Our layer takes the place of vLLM's gated delta net.

    Reason: a layer is registered by its class, whose module takes 0.6 s to import and few models need.
    Reference: vllm/model_executor/custom_op.py PluggableLayer.register_oot.
    Exit: when a layer can be registered by name.
    """
    import ascend_plugin.ops.gated_delta_net  # noqa: F401  registers it


IMPORT_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "vllm.benchmarks.serve": _find_benchmark_tokenizer,
    "vllm.model_executor.layers.mamba.gdn.qwen_gdn_linear_attn": _register_delta_net,
    "vllm.model_executor.layers.quantization.auto_awq": _read_awq_anywhere,
    "vllm.model_executor.layers.quantization.auto_gptq": _read_gptq_anywhere,
    "vllm.model_executor.layers.quantization.fp8": _dequantize_fp8,
    "vllm.model_executor.models.registry": _inspect_models_in_forks,
}
