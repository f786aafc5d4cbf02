"""ACL graphs: which batch sizes to capture, capturing and replaying them, and giving way when a chip runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ascend_facts.chips import ChipSpec
from ascend_plugin.log import plugin_logger

if TYPE_CHECKING:
    from vllm.config import CompilationConfig, VllmConfig

logger = plugin_logger(__name__)

RESERVED_EVENTS = 64  # for everything outside graphs: copies, asynchronous scheduling, HCCL itself
RESERVED_STREAMS = 64
COLLECTIVES_PER_LAYER = 2
STREAMS_PER_GRAPH = 1

CUBE_ROWS = 16  # the matrix unit multiplies 16 rows at once, so decode batches below it cost the same
MAX_GRAPHS = 16  # beyond it padding saves little and start-up grows


def graph_budget(chip: ChipSpec, layers: int, tensor_parallel_size: int) -> int:
    """How many full decode graphs of this model the chip's streams and events allow, as far as is known beforehand.

    What a graph really takes is measured when the first is captured (see graphs.wrapper).
    """
    streams = STREAMS_PER_GRAPH
    events = 2
    if tensor_parallel_size > 1:
        events += (layers * COLLECTIVES_PER_LAYER + 1) * chip.forms.events_per_collective
        streams += 1
    if not chip.graph_lengths_on_device:
        events += layers  # each attention waits for its host-side lengths
    budget = min(
        (chip.max_streams - RESERVED_STREAMS) // streams,
        (chip.max_events - RESERVED_EVENTS) // events,
    )
    if tensor_parallel_size > 1 and chip.forms.graphs_with_collectives:
        budget = min(budget, chip.forms.graphs_with_collectives)
    return budget


def ladder(largest: int) -> list[int]:
    """Batch sizes worth a graph of their own, up to and with `largest`: powers of two and, from 32, their midpoints."""
    powers = [1 << power for power in range(20)]
    sizes = powers + [3 * power // 2 for power in powers if power >= 32]
    return sorted({size for size in sizes if size < largest} | {largest})


def capture_sizes(budget: int, largest: int) -> list[int]:
    """The batch sizes to capture with `budget` graphs for batches up to `largest`; empty if there is no room for one.

    The largest is always there, so that no decode batch falls back to eager; when room is short, sizes below 16 go
    first, because the matrix unit computes 16 rows anyway.
    """
    budget = min(budget, MAX_GRAPHS)
    sizes = ladder(largest)
    if budget < 1:
        return []
    if len(sizes) > budget:
        powers = [size for size in sizes if size & (size - 1) == 0 or size == largest]
        sizes = powers if len(powers) <= budget else [size for size in powers if size >= CUBE_ROWS] or powers
    if len(sizes) > budget:
        steps = [round(index * (len(sizes) - 1) / (budget - 1)) for index in range(budget)] if budget > 1 else [-1]
        sizes = sorted({sizes[step] for step in steps})
    return sizes


def choose_capture_sizes(vllm_config: VllmConfig, chip: ChipSpec) -> None:
    """Set the sizes to capture, or trim the user's list to what the chip can hold, saying so in one line."""
    compilation = vllm_config.compilation_config
    query_len = vllm_config.uniform_decode_query_len
    layers = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
    budget = graph_budget(chip, layers, vllm_config.parallel_config.tensor_parallel_size)
    if vllm_config.lora_config is not None:
        budget //= 2  # each size is captured once with adapters and once without
    asked = compilation.cudagraph_capture_sizes
    if asked is None:
        scheduler = vllm_config.scheduler_config
        largest = min(scheduler.max_num_seqs, max(1, scheduler.max_num_batched_tokens // query_len))
        if compilation.max_cudagraph_capture_size is not None:
            largest = max(1, min(largest, compilation.max_cudagraph_capture_size // query_len))
        compilation.cudagraph_capture_sizes = [size * query_len for size in capture_sizes(budget, largest)]
    elif len(asked) > budget:
        kept = sorted(asked)[-budget:] if budget else []
        logger.warning(
            "%d graph sizes are asked for and %s has streams and events for %d of this model: capturing %s.",
            len(asked), chip.soc_version, budget, kept or "none",
        )  # fmt: skip
        compilation.cudagraph_capture_sizes = kept
    if not _settle(compilation):
        logger.warning("%s has no streams and events for a graph of %d layers: decoding eagerly.", chip.name, layers)


def limit_tokens(compilation: CompilationConfig, most: int, reason: str) -> None:
    """Drop the sizes above `most` tokens, saying why; batches of these sizes run eagerly."""
    sizes = compilation.cudagraph_capture_sizes or []
    compilation.cudagraph_capture_sizes = [size for size in sizes if size <= most]
    if len(compilation.cudagraph_capture_sizes) < len(sizes):
        kept = compilation.cudagraph_capture_sizes
        logger.info("Graphs are captured for batches of %s tokens: %s.", ", ".join(map(str, kept)) or "no", reason)
        _settle(compilation)


def _settle(compilation: CompilationConfig) -> bool:
    """Make the rest of the configuration follow from the sizes; False where none is left."""
    from vllm.config import CUDAGraphMode

    sizes = compilation.cudagraph_capture_sizes
    if sizes:
        compilation.max_cudagraph_capture_size = max(sizes)
    else:
        compilation.cudagraph_mode = CUDAGraphMode.NONE
    return bool(sizes)
