"""What the plugin sets in vLLM's configuration, and what it refuses, from the facts of the chip."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from vllm import envs
from vllm.config import CompilationMode, CUDAGraphMode, KVTransferConfig

from ascend_facts.chips import ChipSpec
from ascend_facts.quantized_format import Quantization, not_run, read_quantization
from ascend_facts.refused import refusal
from ascend_facts.versions import row
from ascend_plugin import detection, quantization, refusals
from ascend_plugin.graphs import budget
from ascend_plugin.log import plugin_logger
from ascend_plugin.preconditions import has_torchvision

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from vllm.config import ModelConfig, SpeculativeConfig, VllmConfig

logger = plugin_logger(__name__)

WORKER = "ascend_plugin.worker.AscendWorker"
SLEEP_BACKEND = "ascend"
OFFLOADING = "OffloadingConnector"
HOST_CACHE, HOST_CACHE_SPEC = "ascend_plugin.cache.host_offload", "AscendOffloadingSpec"
SHARED_STORAGE, SHARED_FOLDER = "ExampleConnector", "shared_storage_path"
SHARED_CACHE = "ascend_plugin.cache.shared_storage"
OWN_CACHES = HOST_CACHE, SHARED_CACHE
REJECTION_METHODS = ("standard", "synthetic")
DRAFTERS = ("ngram", "suffix", "mtp", "eagle", "eagle3", "draft_model", "custom_class")
PICTURES = ("image", "video")
PREPARED_BY = {"SmolVLMForConditionalGeneration": "num2words"}  # which set-up does not bring, nor vLLM
KV_CACHE_DTYPES = ("auto", "float16", "bfloat16")


class UnsupportedChoice(ValueError):
    """The user asked for something that the chip or the plugin cannot do; the message has the reason and the remedy."""


def apply_defaults(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    """Fill in what the user left open, before vLLM derives other settings from it. A user's choice is kept.

    Raises UnsupportedChoice for what vLLM would derive a great deal from.
    """
    _check_architecture(vllm_config)
    _check_weights(vllm_config, chip)
    _check_runner(vllm_config)
    if refused := refusals.refusal(vllm_config, chip):
        raise UnsupportedChoice(refused)
    _prepare_host_cache(vllm_config)
    _prepare_shared_cache(vllm_config)
    quantization.detect(vllm_config)
    if _rounds_weights(vllm_config, chip):
        quantization.round_float32(vllm_config)
    _make_room_for_prompts(vllm_config)
    compilation = vllm_config.compilation_config
    if compilation.mode is None:
        compilation.mode = CompilationMode.NONE  # there is no compiler backend; graphs are captured from eager code
    if compilation.cudagraph_mode is None:
        compilation.cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY if chip.has_graphs else CUDAGraphMode.NONE
    vllm_config.kernel_config.enable_jit_warmup = False
    if compilation.cudagraph_mode != CUDAGraphMode.NONE and vllm_config.model_config is not None:
        budget.choose_capture_sizes(vllm_config, chip)


def check_and_update(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    """The last word on the configuration. Raises UnsupportedChoice."""
    parallel = vllm_config.parallel_config
    if parallel.worker_cls == "auto":
        parallel.worker_cls = WORKER
    spawn_if_device_is_open()
    _check_parallel(vllm_config, chip)
    _check_graph_mode(vllm_config)
    _check_kv_cache(vllm_config, chip)
    if vllm_config.lora_config is not None and vllm_config.lora_config.fully_sharded_loras:
        raise UnsupportedChoice("Leave out --fully-sharded-loras: adapters are whole on every chip of this plugin.")
    if vllm_config.model_config is None:
        return
    check_dtype(vllm_config.model_config.dtype, chip)
    _check_media(vllm_config)
    _prepare_float32(vllm_config, chip)
    _check_speculation(vllm_config, chip)
    _check_sleep_mode(vllm_config.model_config)


def _check_sleep_mode(model: ModelConfig) -> None:
    """Choose this plugin's backend where sleep mode is asked for, and refuse options of CUDA's."""
    if not model.enable_sleep_mode:
        return
    if model.sleep_mode_offload_cudagraph:
        raise UnsupportedChoice(
            "Leave out --sleep-mode-offload-cudagraph: sleep gives the memory of graphs back, and waking captures them "
            "anew."
        )
    if model.enable_nccl_comm_suspend:
        raise UnsupportedChoice(
            "Leave out --enable-nccl-comm-suspend: HCCL keeps the buffers of its communicators while they exist."
        )
    if model.sleep_mode_backend == "cumem":  # vLLM's default, in CUDA's driver
        model.sleep_mode_backend = SLEEP_BACKEND


# Fields that vLLM reads of a configuration and that transformers 5 leaves out of it, by model type.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "gte": {"position_embedding_type": "rope"},
    "xlm-roberta": {"position_embedding_type": "absolute"},
    "qwen3_omni_moe_text": {"tie_word_embeddings": False},
}


def complete_fields(config: PretrainedConfig) -> None:
    """Give a configuration and its parts what the model's checkpoints said before transformers left it out."""
    for name, value in LEFT_OUT.get(config.model_type, {}).items():
        if not hasattr(config, name):
            setattr(config, name, value)
    for part in list(vars(config).values()):
        if hasattr(part, "model_type"):
            complete_fields(part)


def check_decoder(model: ModelConfig) -> None:
    """Refuse decoders that look at an encoder's output. Raises UnsupportedChoice."""
    if model.is_encoder_decoder:
        raise UnsupportedChoice(
            f"Serve another model than {model.architecture}: decoders that look at an encoder's output (Whisper and "
            "its kin) have no attention here yet. Qwen3-ASR turns speech into text without one."
        )


def _check_media(vllm_config: VllmConfig) -> None:
    """Refuse what a model with pictures or sounds asks of attention and is not there."""
    model = vllm_config.model_config
    check_decoder(model)
    if not model.is_multimodal_model or model.multimodal_config is None:
        return
    if model.is_mm_prefix_lm:
        raise UnsupportedChoice(
            f"Add --language-model-only, and {model.architecture} serves text: the tokens of a picture see one another "
            "in both directions in this model, and the attention here looks back only."
        )
    package = PREPARED_BY.get(model.architecture)
    allowed = any(model.multimodal_config.get_limit_per_prompt(kind) for kind in PICTURES)
    if package is not None and allowed and find_spec(package) is None:
        raise UnsupportedChoice(
            f"Run `pip install {package}`, or add --language-model-only for text alone: transformers prepares what "
            f"{model.architecture} is shown with it, and it is not installed."
        )
    sees = any(hasattr(model.hf_config, name) for name in ("vision_config", "visual", "thinker_config"))
    if sees and allowed and not has_torchvision():
        release = dict(zip(row().torch, row().torchvision, strict=True)).get(torch.__version__.partition("+")[0])
        raise UnsupportedChoice(
            f"Run `pip install --no-deps torchvision=={release or row().torchvision[0]}`, or add --language-model-only "
            "for text alone: pictures are prepared by torchvision, which is not installed."
        )


def _check_architecture(vllm_config: VllmConfig) -> None:
    """Refuse what is known not to run, and what vLLM has in folders of CUDA and ROCm alone."""
    if vllm_config.model_config is None:
        return
    from vllm.model_executor.models.registry import ModelRegistry

    name = vllm_config.model_config.architecture
    registered = ModelRegistry.models.get(name)
    if known := refusal(name, getattr(registered, "module_name", "")):
        raise UnsupportedChoice(known)
    if name.startswith("Gemma4"):
        # vLLM names a Triton backend for its two sizes of heads, unless FlashAttention 4 is there; ours take both.
        vllm_config.attention_config.backend = None


# Tokens of a prompt see one another in these: vLLM cuts no prompt in chunks and takes none from the cache.
WHOLE_PROMPTS = ("HrmTextForCausalLM",)


def _make_room_for_prompts(vllm_config: VllmConfig) -> None:
    """Let the longest prompt fit into a step where prompts come whole.

    vLLM leaves chunks out once the model is loaded, when nothing looks at the budget of a step any more: a prompt
    beyond it would wait for ever, and its engine spin.
    """
    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    if model is None or model.architecture not in WHOLE_PROMPTS:
        return
    scheduler.enable_chunked_prefill = False
    vllm_config.cache_config.enable_prefix_caching = False
    if scheduler.max_num_batched_tokens < model.max_model_len:
        logger.info("A step takes %d tokens: this model reads prompts whole.", model.max_model_len)
        scheduler.max_num_batched_tokens = model.max_model_len


ONLINE = ("online", "fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "experts_int8")


def _check_weights(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    """Refuse formats of weights that no product here reads, and quantization while the model loads."""
    model = vllm_config.model_config
    if model is None:
        return
    stored = stored_quantization(model)
    if reason := not_run(stored, chip):
        raise UnsupportedChoice(f"Use another checkpoint: {reason}.")
    if stored.method is None and model.quantization in ONLINE:
        raise UnsupportedChoice(
            f"Leave out --quantization {model.quantization}, or name a checkpoint that is quantized already, such as "
            f"W8A8, AWQ or GPTQ: weights are not quantized while they are loaded on {chip.soc_version}."
        )


def stored_quantization(model: Any) -> Quantization:
    """What a model's configuration says of its weights; ModelSlim's own description is read while they are loaded."""
    section = getattr(model.hf_config, "quantization_config", None)
    section = section or getattr(model.hf_text_config, "quantization_config", None)
    if section is not None and not isinstance(section, dict):
        section = section.to_dict()
    return read_quantization({"quantization_config": section} if section else {}, {})


def _check_runner(vllm_config: VllmConfig) -> None:
    """Refuse what brings in vLLM's second model runner, whose worker would end with "requires Triton"."""
    if vllm_config.watermark_config is not None:
        raise UnsupportedChoice("Leave out --watermark-config: only vLLM's second model runner, in Triton, watermarks.")
    if vllm_config.attention_config.hisparse_config is not None:
        raise UnsupportedChoice("Leave out the HiSparse options: only vLLM's second model runner, in Triton, has them.")
    if envs.VLLM_USE_V2_MODEL_RUNNER:
        raise UnsupportedChoice(
            "Unset VLLM_USE_V2_MODEL_RUNNER: vLLM's second model runner is written in Triton, and this plugin runs the "
            "first one."
        )


def check_dtype(dtype: torch.dtype | str, chip: ChipSpec) -> None:
    """Raises UnsupportedChoice for a dtype that the chip cannot compute in."""
    name = str(dtype).removeprefix("torch.")
    if name not in chip.model_dtypes:
        raise UnsupportedChoice(
            f"Leave out --dtype {name} (or give --dtype {chip.preferred_dtype}): {chip.soc_version} computes in "
            f"{' and '.join(chip.model_dtypes)} only. A {name} checkpoint is converted while it loads."
        )


def spawn_if_device_is_open() -> None:
    """Start the engine's processes afresh where this one has used a device, which a forked child could not use then.

    torch_npu says "Cannot re-initialize NPU in forked subprocess"; vLLM's own guard knows CUDA and XPU only.
    """
    import torch_npu

    if torch_npu.npu.is_initialized() and os.environ.get("VLLM_WORKER_MULTIPROC_METHOD") != "spawn":
        logger.info("A device is open in this process: the engine's processes are spawned, not forked.")
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


def _rounds_weights(vllm_config: VllmConfig, chip: ChipSpec) -> bool:
    """Whether this is a float32 model without a quantization, on a chip that multiplies float16 and nothing wider."""
    model = vllm_config.model_config
    beyond_float16 = model is not None and model.dtype == torch.float32 and chip.rounds_float32_products
    return beyond_float16 and model.quantization is None


def _prepare_float32(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    """Keep the cache of a float32 model in float16 where products are float16. Raises UnsupportedChoice.

    Such a model adds and normalizes in float32 and multiplies in float16 (see ops.linear.rounded_product).
    """
    model = vllm_config.model_config
    if model.dtype != torch.float32 or not chip.rounds_float32_products:
        return
    kinds = {
        "experts": model.get_num_experts() > 0,
        "recurrent layers": model.is_hybrid,
        "quantized weights": quantization.stored_method(model.quantization) is not None,
        "pooling": model.runner_type != "generate",
    }
    if found := [name for name, present in kinds.items() if present]:
        raise UnsupportedChoice(
            f"Give --dtype float16 if the model allows it: {chip.soc_version} multiplies float16 only, and float32 "
            f"models with {' and '.join(found)} do not run on it yet."
        )
    if vllm_config.cache_config.cache_dtype == "auto":
        vllm_config.cache_config.cache_dtype = "float16"


def _check_speculation(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    speculation, model = vllm_config.speculative_config, vllm_config.model_config
    if speculation is None:
        return
    if model.is_hybrid and vllm_config.parallel_config.pipeline_parallel_size > 1:
        raise UnsupportedChoice(
            "Leave out --speculative-config or --pipeline-parallel-size: only the last pipeline stage knows which "
            "drafts were refused, and the recurrent layers (gated delta net) of the others could not take them back."
        )
    if model.is_hybrid and speculation.num_speculative_tokens > 1:
        # With three drafts a step one answer in thirteen was not the greedy one; with one draft all are.
        raise UnsupportedChoice(
            'Set "num_speculative_tokens" to 1 in --speculative-config: more drafts a step are not right yet before '
            "recurrent layers (gated delta net)."
        )
    if speculation.rejection_sample_method not in REJECTION_METHODS:
        raise UnsupportedChoice(
            f'Leave out "rejection_sample_method": "{speculation.rejection_sample_method}" in --speculative-config: it '
            f"is a Triton kernel without a stand-in here, which {' and '.join(REJECTION_METHODS)} have."
        )
    _check_drafter(speculation, chip)
    draft = speculation.draft_model_config
    if draft is not None and draft.uses_mrope and not model.uses_mrope:
        # Text-only Qwen3.5: vLLM takes the sections of multimodal positions out of the model's configuration, and
        # forgets the draft's (Qwen3_5ForCausalLMConfig in vllm/model_executor/models/config.py).
        for config in (draft.hf_config, draft.hf_text_config):
            for name in ("mrope_section", "mrope_interleaved"):
                (getattr(config, "rope_parameters", None) or {}).pop(name, None)


def _check_drafter(speculation: SpeculativeConfig, chip: ChipSpec) -> None:
    """Refuse what lays out or draws drafts in kernels that have no stand-in here, or on a chip that hangs on it."""
    if speculation.method not in DRAFTERS:
        raise UnsupportedChoice(
            f'Choose another "method" in --speculative-config ({", ".join(DRAFTERS)}): what {speculation.method} '
            "drafts with is written for CUDA and has not been run here."
        )
    for option in ("parallel_drafting", "use_heterogeneous_vocab"):
        if getattr(speculation, option):
            raise UnsupportedChoice(
                f'Leave out "{option}" in --speculative-config: its layout is a Triton kernel without a stand-in here.'
            )
    if speculation.draft_sample_method != "greedy" and not chip.forms.device_random:
        raise UnsupportedChoice(
            f'Leave out "draft_sample_method" in --speculative-config: drafts are drawn with random numbers of the '
            f"device, on which {chip.soc_version} hangs."
        )


def _check_parallel(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    parallel = vllm_config.parallel_config
    if parallel.world_size > 1 and not chip.has_full_hccl and os.environ.get("HCCL_OP_EXPANSION_MODE") == "AI_CPU":
        raise UnsupportedChoice(
            f"Unset HCCL_OP_EXPANSION_MODE: on {chip.soc_version} HCCL's AI_CPU mode knows AllReduce in a single "
            "communicator only, and vLLM makes several."
        )
    if parallel.enable_dbo:
        raise UnsupportedChoice("Leave out --enable-dbo: its overlap is written for CUDA streams.")
    if parallel.pipeline_parallel_size > 1 and not chip.has_full_hccl:
        raise UnsupportedChoice(
            "Leave out --pipeline-parallel-size and raise --tensor-parallel-size: HCCL has neither Send nor Receive "
            f"on {chip.soc_version}."
        )
    if parallel.enable_expert_parallel and not chip.forms.has_expert_parallel:
        raise UnsupportedChoice(
            f"Leave out --enable-expert-parallel: on {chip.soc_version} nobody has run products of experts that leave "
            "out the rows of others. Tensor parallelism divides experts too."
        )
    if parallel.nnodes_within_dp > 1 and not chip.has_full_hccl:
        raise UnsupportedChoice(
            f"Leave out --nnodes: HCCL on {chip.soc_version} joins the chips of one server only. Run one server each "
            "on several machines, behind a load balancer."
        )
    if parallel.distributed_executor_backend in ("ray", "external_launcher") or parallel.nnodes > 1:
        return  # the other machines' chips are not visible from here
    wanted = parallel.world_size * (parallel.data_parallel_size_local or 1)
    available = detection.device_count()
    if wanted > available:
        raise UnsupportedChoice(
            f"{wanted} chips are asked for (tensor x pipeline x data parallel) and {available} are visible: lower "
            "--tensor-parallel-size, or widen ASCEND_RT_VISIBLE_DEVICES."
        )


def _check_graph_mode(vllm_config: VllmConfig) -> None:
    compilation = vllm_config.compilation_config
    if compilation.mode not in (None, CompilationMode.NONE):
        logger.warning("torch.compile has no Ascend backend here: compilation mode %s becomes NONE.", compilation.mode)
        compilation.mode = CompilationMode.NONE
    # One warm-up before the first capture; see AscendModelRunner._warmup_and_capture.
    if compilation.cudagraph_mode != CUDAGraphMode.NONE:
        compilation.cudagraph_num_of_warmups = 1


def _prepare_host_cache(vllm_config: VllmConfig) -> None:
    """Give vLLM's offloading connector this plugin's copies; it is about to choose that connector itself."""
    transfer = vllm_config.kv_transfer_config
    if vllm_config.cache_config.kv_offloading_size is not None:
        transfer = vllm_config.kv_transfer_config = transfer or KVTransferConfig()
    elif transfer is None or transfer.kv_connector != OFFLOADING or transfer.kv_connector_module_path:
        return
    transfer.kv_connector_module_path = HOST_CACHE
    transfer.kv_connector_extra_config.update(spec_name=HOST_CACHE_SPEC, spec_module_path=HOST_CACHE)


def _prepare_shared_cache(vllm_config: VllmConfig) -> None:
    """Put this plugin's connector in the place of vLLM's example, which reads caches layer by layer in its own form."""
    transfer = vllm_config.kv_transfer_config
    if transfer is None or transfer.kv_connector != SHARED_STORAGE or transfer.kv_connector_module_path:
        return
    if not transfer.kv_connector_extra_config.get(SHARED_FOLDER):
        raise UnsupportedChoice(
            f'Add "kv_connector_extra_config": {{"{SHARED_FOLDER}": FOLDER}} to --kv-transfer-config, with a folder '
            "that both servers see."
        )
    model = vllm_config.model_config
    if model is not None and model.is_hybrid:
        raise UnsupportedChoice(
            f"Leave out --kv-transfer-config: {model.hf_config.model_type} keeps recurrent states beside its cache, "
            f"which {SHARED_STORAGE} does not hand over."
        )
    if transfer.kv_load_failure_policy == "recompute" and vllm_config.scheduler_config.async_scheduling:
        # The step that was scheduled ahead goes on from a token that was taken back, and the chip faults on it.
        raise UnsupportedChoice('Add --no-async-scheduling, which "kv_load_failure_policy": "recompute" needs.')
    transfer.kv_connector_module_path = SHARED_CACHE


def _check_kv_cache(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    cache = vllm_config.cache_config
    if cache.cache_dtype not in KV_CACHE_DTYPES:
        raise UnsupportedChoice(
            f"Leave out --kv-cache-dtype {cache.cache_dtype}: {chip.soc_version} keeps its cache in the model's dtype."
        )
    if chip.kv_cache_format == "nz" and cache.prefix_match_unit is not None:
        raise UnsupportedChoice(
            f"Leave out --prefix-match-unit: on {chip.soc_version} prefixes are reused in whole blocks only."
        )
    transfer = vllm_config.kv_transfer_config
    if chip.kv_cache_format == "nz" and transfer is not None and transfer.kv_connector_module_path not in OWN_CACHES:
        raise UnsupportedChoice(
            f"Leave out --kv-transfer-config, or name {OFFLOADING} or {SHARED_STORAGE} in it: the cache of "
            f"{chip.soc_version} is in a private format that other connectors cannot read."
        )
