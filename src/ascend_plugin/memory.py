"""Refusing a model that cannot fit, with the arithmetic, before its weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ascend_facts import memory_plan
from ascend_facts.model_shape import UnreadableConfig, read_model_shape
from ascend_plugin import detection, quantization
from ascend_plugin.log import plugin_logger

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = plugin_logger(__name__)

# Those whose format the arithmetic knows. compressed-tensors may be int8 or int4: it is let through.
KNOWN_METHODS = (None, "ascend", "auto_awq", "auto_gptq", "fp8")


class ModelDoesNotFit(MemoryError):
    """The weights and the cache of one request exceed the memory of a chip; the message has the arithmetic."""


def plan_or_refuse(vllm_config: VllmConfig, total_bytes: int, requested_bytes: int) -> memory_plan.MemoryPlan | None:
    """Compare what the model needs with what this chip offers, measured. Raises ModelDoesNotFit.

    None, and no refusal, for a model whose configuration the arithmetic cannot read: loading it will tell.
    """
    model, parallel, scheduler = vllm_config.model_config, vllm_config.parallel_config, vllm_config.scheduler_config
    method = quantization.stored_method(model.quantization)
    if parallel.pipeline_parallel_size > 1 or method not in KNOWN_METHODS:
        return None
    try:
        shape = read_model_shape(model.hf_config.to_dict())
    except UnreadableConfig as error:
        logger.debug("The memory of this model is not known in advance: %s", error)
        return None
    request = memory_plan.MemoryRequest(
        tensor_parallel_size=parallel.tensor_parallel_size,
        chip_bytes=total_bytes,
        weight_format=memory_plan.checkpoint_format(
            method,
            detection.current_chip(),
            str(model.dtype).removeprefix("torch."),
            shape.has_experts,
        ),
        memory_fraction=requested_bytes / total_bytes,
        batched_tokens=scheduler.max_num_batched_tokens,
        sequences=scheduler.max_num_seqs,
        block_size=vllm_config.cache_config.block_size or 128,
        has_graphs=not model.enforce_eager,
    )
    plan = memory_plan.plan_memory(shape, request)
    if plan.weights_bytes + plan.bytes_of_request(request.block_size) > plan.budget_bytes:
        raise ModelDoesNotFit(memory_plan.refusal(model.model, shape, plan, detection.current_chip().soc_version))
    return plan
