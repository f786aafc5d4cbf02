"""Refusing a model that cannot fit, with the arithmetic, before its weights are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ascend_facts import memory_plan
from ascend_facts.checkpoint import measured
from ascend_facts.model_shape import ModelShape, UnreadableConfig, read_model_shape
from ascend_facts.quantized_format import Quantization, held_format
from ascend_facts.safetensors_file import BrokenCheckpoint
from ascend_plugin import detection, quantization
from ascend_plugin.log import plugin_logger

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

logger = plugin_logger(__name__)


class ModelDoesNotFit(MemoryError):
    """The weights and the cache of one request exceed the memory of a chip; the message has the arithmetic."""


def plan_or_refuse(vllm_config: VllmConfig, total_bytes: int, requested_bytes: int) -> memory_plan.MemoryPlan | None:
    """Compare what the model needs with what this chip offers, measured. Raises ModelDoesNotFit.

    Only a model whose parameters are known is refused: counted from its tensors, or of a family whose counts published
    totals hold. None for one whose configuration the arithmetic cannot read: loading it will tell.
    """
    model, parallel, scheduler = vllm_config.model_config, vllm_config.parallel_config, vllm_config.scheduler_config
    shape = _shape(model)
    if shape is None:
        return None
    chip = detection.current_chip()
    request = memory_plan.request_on(
        chip,
        parallel.tensor_parallel_size,
        held_format(shape.stored, chip, str(model.dtype).removeprefix("torch."), shape.has_experts),
        chip_bytes=total_bytes,
        memory_fraction=requested_bytes / total_bytes,
        batched_tokens=scheduler.max_num_batched_tokens,
        sequences=scheduler.max_num_seqs,
        block_size=vllm_config.cache_config.block_size or 128,
        has_graphs=not model.enforce_eager,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        expert_ranks=parallel.world_size_across_dp if parallel.enable_expert_parallel else 0,
    )
    plan = memory_plan.plan_memory(shape, request)
    if plan.weights_bytes + plan.bytes_of_request(request.block_size) <= plan.budget_bytes:
        return plan
    text = memory_plan.refusal(model.model, shape, plan, chip.soc_version)
    if shape.is_counted and parallel.pipeline_parallel_size == 1:
        raise ModelDoesNotFit(text)
    logger.warning("It is tried all the same, as nothing holds these counts for %s: %s", shape.model_type, text)
    return None


def _shape(model: ModelConfig) -> ModelShape | None:
    """The model's sizes: from its tensors where the checkpoint is a folder here. None if they cannot be read."""
    try:
        shape = read_model_shape(model.hf_config.to_dict())
        method = quantization.stored_method(model.quantization)
        if method is None:
            shape = replace(shape, stored=replace(shape.stored, method=None))
        elif shape.stored.method is None:  # chosen by a flag, or found beside config.json: what it holds is not known
            return None if method != "ascend" else _measured(_modelslim(shape), model)
        return _measured(shape, model)
    except UnreadableConfig as error:
        logger.debug("The memory of this model is not known in advance: %s", error)
        return None


def _modelslim(shape: ModelShape) -> ModelShape:
    """The shape of a checkpoint of ModelSlim, whose config.json is silent about it."""
    return replace(shape, quantization="ascend", stored=Quantization("ascend", 8, activation_bits=8, kind="W8A8"))


def _measured(shape: ModelShape, model: ModelConfig) -> ModelShape:
    folder = Path(model.model)
    if not folder.is_dir():
        return shape
    try:
        return measured(shape, folder)
    except BrokenCheckpoint as error:
        logger.debug("%s: its weights are counted from config.json.", error)
        return shape
