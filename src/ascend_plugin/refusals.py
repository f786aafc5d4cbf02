"""Options of vLLM that no chip of this plugin has, each with the reason and what to do, before weights are read.

docs/serve-flags.md has all of vLLM's options; what is refused there is refused here, in configuration.py, or by vLLM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vllm import envs
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from ascend_facts.chips import ChipSpec

if TYPE_CHECKING:
    from vllm.config import VllmConfig

EXPERTS_EXCHANGE = "allgather_reducescatter"  # vLLM's default
OTHER_FORMATS = ("gguf", "bitsandbytes")


def refusal(config: VllmConfig, chip: ChipSpec) -> str | None:
    """The sentence for the first option that does not run, or None."""
    return next((sentence for check in CHECKS if (sentence := check(config, chip)) is not None), None)


def _batch_invariance(config: VllmConfig, chip: ChipSpec) -> str | None:
    if not envs.VLLM_BATCH_INVARIANT:
        return None
    return (
        f"Unset VLLM_BATCH_INVARIANT: products of {chip.soc_version} add up a row in an order that depends on its "
        "place among the others (docs/silicon.md, row 16). Answers differ least where one request is served at a time "
        "(--max-num-seqs 1 --disable-prefix-caching)."
    )


def _attention_backend(config: VllmConfig, chip: ChipSpec) -> str | None:
    backend = config.attention_config.backend
    if backend in (None, AttentionBackendEnum.CUSTOM):
        return None
    return (
        f"Leave out --attention-backend {backend.name}: on {chip.soc_version} there is one for each chip and it is "
        "chosen for you."
    )


def _prompt_embeds(config: VllmConfig, chip: ChipSpec) -> str | None:
    if config.model_config is None or not config.model_config.enable_prompt_embeds or chip.forms.int64_sums:
        return None
    return (
        "Leave out --enable-prompt-embeds and send tokens: vLLM adds int64 on the device to find its prompts' "
        f"embeddings, in which {chip.soc_version} faults."
    )


def _weights_on_the_host(config: VllmConfig, chip: ChipSpec) -> str | None:
    offload = config.offload_config
    if offload.uva.cpu_offload_gb > 0:
        return (
            "Leave out --cpu-offload-gb and raise --tensor-parallel-size, or name a quantized checkpoint: an operator "
            f"of {chip.soc_version} cannot read weights in the host's memory."
        )
    if offload.prefetch.offload_group_size > 0:
        return (
            "Leave out --offload-group-size and raise --tensor-parallel-size, or name a quantized checkpoint: vLLM "
            "prefetches weights by CUDA's streams, in the layout that the host has."
        )
    return None


def _cache_on_the_host(config: VllmConfig, chip: ChipSpec) -> str | None:
    if config.cache_config.kv_offloading_size is None:
        return None
    if config.cache_config.kv_offloading_backend != "native":
        return (
            f"Leave out --kv-offloading-backend {config.cache_config.kv_offloading_backend}: the other one than vLLM's "
            "own was not tried on these chips."
        )
    if envs.VLLM_USE_SIMPLE_KV_OFFLOAD:
        return (
            "Unset VLLM_USE_SIMPLE_KV_OFFLOAD, and vLLM's offloading connector is used: the simple one copies by calls "
            "of CUDA's driver."
        )
    return None


def _formats(config: VllmConfig, chip: ChipSpec) -> str | None:
    load_format = str(config.load_config.load_format)
    if load_format not in OTHER_FORMATS:
        return None
    return (
        f"Leave out --load-format {load_format} and name a checkpoint in safetensors, quantized by AWQ, GPTQ, "
        f"compressed-tensors or ModelSlim if it must be small: no product of {chip.soc_version} reads that format."
    )


def _parallelism(config: VllmConfig, chip: ChipSpec) -> str | None:
    parallel = config.parallel_config
    if parallel.ubatch_size > 1:
        return "Leave out --ubatch-size: vLLM overlaps parts of a batch by CUDA's streams and events."
    if parallel.all2all_backend != EXPERTS_EXCHANGE:
        return (
            f"Leave out --all2all-backend {parallel.all2all_backend}: experts exchange tokens by all-gather here, and "
            "the other backends are libraries for CUDA and ROCm."
        )
    return None


def _weight_transfer(config: VllmConfig, chip: ChipSpec) -> str | None:
    transfer = config.weight_transfer_config
    if transfer is None:
        return None
    return (
        f'Leave out --weight-transfer-config (backend "{transfer.backend}") and send weights by collective_rpc: '
        '"reload_weights" reads a checkpoint again, and load_weights() of the model takes tensors. vLLM\'s backends '
        "speak NCCL and CUDA's IPC."
    )


CHECKS: tuple[Callable[[VllmConfig, ChipSpec], str | None], ...] = (
    _batch_invariance,
    _attention_backend,
    _prompt_embeds,
    _weights_on_the_host,
    _cache_on_the_host,
    _formats,
    _parallelism,
    _weight_transfer,
)
