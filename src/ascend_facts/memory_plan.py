"""Does a model fit on a chip, with the arithmetic: weights, activations, graphs, runtime, and the cache that is left.

Pure functions of a ModelShape: `ascend plan` prints them, the plugin refuses with them before it reads a weight, and
what a real start measures can be compared with them line by line. The marks EST are estimates to be replaced by
measurements; everything else is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ascend_facts.model_shape import BYTES_OF_DTYPE, ModelShape, Weights
from ascend_facts.quantized_format import WeightFormat, bytes_of_weight

__all__ = ["MemoryPlan", "MemoryRequest", "WeightFormat", "explain", "plan_memory", "refusal", "request_on"]

if TYPE_CHECKING:
    from ascend_facts.chips import ChipSpec

OUTSIDE_LAYERS = ("embedding", "lm_head", "vision")  # on the first or the last stage of a pipeline

DEFAULT_MEMORY_FRACTION = 0.92  # vLLM's gpu_memory_utilization
DEFAULT_BATCHED_TOKENS = 2048
DEFAULT_SEQUENCES = 256
# The most that vLLM gives a server's step, and its max_num_seqs, by the memory of a chip from so many bytes on
# (vllm/engine/arg_utils.py, get_batch_defaults).
SERVER_DEFAULTS = ((160 << 30, 16384, 1024), (70 << 30, 8192, 1024), (0, DEFAULT_BATCHED_TOKENS, DEFAULT_SEQUENCES))

RUNTIME_BYTES = 512 << 20  # EST: device context, streams and operator workspaces outside PyTorch's allocator
COLLECTIVE_BUFFER_BYTES = 2 * (200 << 20)  # HCCL_BUFFSIZE is 200 MB, one to send and one to receive
GRAPH_BYTES = 300 << 20  # EST: memory of the captured graphs, all sizes
HIDDEN_COPIES = 8  # EST: hidden-sized tensors alive at the widest point of a layer
WIDE_COPIES = 3  # gate, up and their product
SAMPLED_LOGIT_BYTES = 4  # the fp32 copy of a logit that sampling works on


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """One way to place a model: on how many chips, of what memory, in what format."""

    tensor_parallel_size: int
    chip_bytes: int  # usable memory of the smallest chip taking part
    weight_format: WeightFormat = "fp16"
    memory_fraction: float = DEFAULT_MEMORY_FRACTION
    batched_tokens: int = DEFAULT_BATCHED_TOKENS
    sequences: int = DEFAULT_SEQUENCES
    cache_dtype: str = "float16"
    block_size: int = 128
    has_graphs: bool = True
    pipeline_parallel_size: int = 1
    expert_ranks: int = 0  # over which experts are divided; 0 is as everything else
    copies_tied_head: bool = False  # FRACTAL_NZ products do not read a table that is looked up
    separates_states: bool = False  # caches in FRACTAL_NZ cannot share memory with recurrent states
    cache_limit_bytes: int = 0  # the cache is not larger than this; 0 is what is left


def request_on(
    chip: ChipSpec,
    tensor_parallel_size: int = 1,
    weight_format: WeightFormat = "fp16",
    *,
    chip_bytes: int = 0,
    memory_fraction: float = DEFAULT_MEMORY_FRACTION,
    batched_tokens: int = 0,
    sequences: int = 0,
    block_size: int = 0,
    has_graphs: bool = True,
    pipeline_parallel_size: int = 1,
    expert_ranks: int = 0,
    cache_limit_bytes: int = 0,
) -> MemoryRequest:
    """A request on chips of a kind, with what vLLM and the plugin choose there for all that is left at 0.

    chip_bytes is the memory of the smallest chip; 0 is the table's, of which the chips of one card may differ.
    """
    ranks = tensor_parallel_size * pipeline_parallel_size
    memory = chip_bytes or min(chip.usable_memory_bytes(index) for index in range(ranks))
    tokens, most_sequences = next((tokens, count) for least, tokens, count in SERVER_DEFAULTS if memory >= least)
    return MemoryRequest(
        tensor_parallel_size=tensor_parallel_size,
        chip_bytes=memory,
        weight_format=weight_format,
        memory_fraction=memory_fraction,
        batched_tokens=batched_tokens or chip.server_step_tokens or tokens,
        sequences=sequences or most_sequences,
        block_size=block_size or chip.kv_block_sizes[0],
        has_graphs=has_graphs and chip.has_graphs,
        pipeline_parallel_size=pipeline_parallel_size,
        expert_ranks=expert_ranks,
        copies_tied_head=chip.weight_format == "nz",
        separates_states=chip.kv_cache_format == "nz",
        cache_limit_bytes=cache_limit_bytes,
    )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where one chip's memory goes. `cache_bytes` is negative by what is missing if the model does not fit."""

    request: MemoryRequest
    model_max_context: int
    budget_bytes: int
    weights_bytes: int
    activation_bytes: int
    graph_bytes: int
    runtime_bytes: int
    cache_bytes: int
    cache_bytes_per_token: int  # of layers that look back over everything
    state_bytes_per_sequence: int
    windowed: tuple[tuple[int, int], ...] = ()  # (window in tokens, bytes a token) of layers that look back so far
    cache_share: float = 1.0  # of cache_bytes that requests can use

    @property
    def fits(self) -> bool:
        """Whether one request of one cache block can be served."""
        return self.usable_cache_bytes >= self.bytes_of_request(self.request.block_size)

    @property
    def usable_cache_bytes(self) -> int:
        """What requests can use of the cache: its limit, if one is set, and the share that vLLM accounts for."""
        limit = self.request.cache_limit_bytes
        held = min(self.cache_bytes, limit) if limit else self.cache_bytes
        return int(held * self.cache_share) if held > 0 else held

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds when one sequence fills it, in whole blocks."""
        block = self.request.block_size
        growth = self.cache_bytes_per_token * block
        most = max(0, self.usable_cache_bytes) // growth if growth else -(-self.model_max_context // block)
        least = 0  # blocks known to fit; searched, as windowed layers stop growing at some length
        while least < most:
            middle = (least + most + 1) // 2
            if self.bytes_of_request(middle * block) <= self.usable_cache_bytes:
                least = middle
            else:
                most = middle - 1
        return least * block

    @property
    def max_context(self) -> int:
        """The longest request that can be served: the model's limit or the cache's."""
        return min(self.model_max_context, self.cache_tokens)

    def bytes_of_request(self, context_tokens: int) -> int:
        """Cache of one request of this many tokens, prompt and answer together.

        A windowed layer keeps the window, the step being computed and one block more (vLLM, SlidingWindowSpec).
        """
        block = self.request.block_size
        total = -(-context_tokens // block) * block * self.cache_bytes_per_token + self.state_bytes_per_sequence
        for window, bytes_per_token in self.windowed:
            kept = min(context_tokens, window - 1 + self.request.batched_tokens)
            total += (-(-kept // block) + 1) * block * bytes_per_token
        return total

    def fits_with_margin(self, cache_bytes: int, weights_bytes: int) -> bool:
        """Whether a cache of this size would fit even if all that is estimated were twice as large.

        weights_bytes is what the loaded model was measured to take: the plan's own figure may be too low.
        """
        estimated = self.activation_bytes + self.graph_bytes + self.runtime_bytes
        return max(self.weights_bytes, weights_bytes) + cache_bytes + 2 * estimated <= self.budget_bytes

    def concurrency(self, context_tokens: int) -> int:
        """Requests of this many tokens that the cache holds at once, within max_num_seqs."""
        each = self.bytes_of_request(context_tokens)
        held = max(0, self.usable_cache_bytes) // each if each else self.request.sequences
        return min(self.request.sequences, held)


def weight_bytes(shape: ModelShape, request: MemoryRequest) -> int:
    """Bytes of weights on one rank: split kinds divided, the others copied; only quantized kinds are stored small."""
    ranks, stages = request.tensor_parallel_size, request.pipeline_parallel_size
    share = -(-shape.layers // stages) / shape.layers if stages > 1 else 1.0
    layered, outside = 0.0, dict.fromkeys(OUTSIDE_LAYERS, 0.0)
    for weights in shape.weights:
        size = weights.parameters * _bytes_each(weights, request.weight_format, shape.stored.group_size)
        divided_by = (request.expert_ranks or ranks) if weights.experts else ranks
        size /= divided_by if weights.split else 1
        if weights.kind in outside:
            outside[weights.kind] += size
        else:
            layered += size * share
    copy = 0.0
    if request.copies_tied_head and shape.has_tied_head:
        copy = shape.vocab_size * shape.hidden_size * 2 / ranks
    first, last = outside["embedding"] + outside["vision"], outside["lm_head"] + copy
    ends = first + last if stages == 1 else max(first, last)
    return round(layered + ends)


def _bytes_each(weights: Weights, weight_format: WeightFormat, group_size: int) -> float:
    """Bytes of one weight of this kind in this format."""
    if weights.kind == "lm_head" and weight_format == "fp16+fp32":
        return 2.0  # its product rounds it, so it is kept rounded
    if not weights.quantized:
        return _value_bytes(weight_format)
    return bytes_of_weight(weight_format, group_size)


def _value_bytes(weight_format: WeightFormat) -> int:
    """Bytes of an activation, and of a weight that no format makes smaller."""
    return 4 if weight_format in ("fp32", "fp16+fp32") else 2


def plan_memory(shape: ModelShape, request: MemoryRequest) -> MemoryPlan:
    """Divide one chip's memory among what serving `shape` needs."""
    ranks, stages = request.tensor_parallel_size, request.pipeline_parallel_size
    value_bytes = BYTES_OF_DTYPE[request.cache_dtype]
    layer_width = HIDDEN_COPIES * shape.hidden_size + WIDE_COPIES * shape.intermediate_size // ranks
    weights = weight_bytes(shape, request)
    width = _value_bytes(request.weight_format)
    logits = request.sequences * shape.vocab_size * (width + SAMPLED_LOGIT_BYTES)
    activations = request.batched_tokens * layer_width * width + logits
    graphs = GRAPH_BYTES if request.has_graphs else 0
    runtime = RUNTIME_BYTES + (COLLECTIVE_BUFFER_BYTES if ranks * stages > 1 else 0)
    budget = int(request.chip_bytes * request.memory_fraction)
    growth = shape.cache_values_per_token(ranks) * value_bytes + shape.indexer_bytes_per_token
    windowed = tuple(
        (layers.window, -(-layers.values_per_token(ranks) * value_bytes // stages))
        for layers in shape.caches
        if layers.window
    )
    has_states = shape.recurrent_layers > 0 and bool(shape.caches)
    return MemoryPlan(
        request=request,
        model_max_context=shape.max_context,
        budget_bytes=budget,
        weights_bytes=weights,
        activation_bytes=activations,
        graph_bytes=graphs,
        runtime_bytes=runtime,
        cache_bytes=budget - weights - activations - graphs - runtime,
        cache_bytes_per_token=-(-growth // stages),
        state_bytes_per_sequence=shape.state_bytes_per_sequence(request.cache_dtype) // (ranks * stages),
        windowed=windowed,
        cache_share=0.5 if has_states and request.separates_states else 1.0,
    )


def tensor_parallel_sizes(shape: ModelShape, chips: int) -> list[int]:
    """Sizes up to `chips` that vLLM can divide this model's heads by."""
    return [size for size in range(1, chips + 1) if shape.splits_into(size)]


def smallest_that_fits(shape: ModelShape, request: MemoryRequest, chips: int = 64) -> MemoryPlan | None:
    """The plan of the smallest tensor-parallel size up to `chips` at which the model fits; None if none does."""
    for size in tensor_parallel_sizes(shape, chips):
        plan = plan_memory(shape, replace(request, tensor_parallel_size=size))
        if plan.fits:
            return plan
    return None


def explain(plan: MemoryPlan) -> list[tuple[str, int, str]]:
    """The arithmetic of a plan, line by line: what, bytes on one chip, where the figure comes from."""
    request = plan.request
    ranks = request.tensor_parallel_size
    return [
        ("chip memory", request.chip_bytes, "what PyTorch sees on the smallest chip taking part"),
        ("budget", plan.budget_bytes, f"x {request.memory_fraction:g} (--gpu-memory-utilization)"),
        ("weights", -plan.weights_bytes, f"{request.weight_format}, over {ranks} chip{'s' if ranks > 1 else ''}"),
        ("activations", -plan.activation_bytes, f"{request.batched_tokens:,} tokens in a step (estimate)"),
        ("graphs", -plan.graph_bytes, "captured decode graphs (estimate)" if plan.graph_bytes else "eager"),
        ("runtime", -plan.runtime_bytes, "context" + (" and HCCL buffers" if ranks > 1 else "") + " (estimate)"),
        ("left for the cache", plan.cache_bytes, _about_cache(plan)),
    ]


def _about_cache(plan: MemoryPlan) -> str:
    """What a token takes of the cache, and what takes from the cache itself."""
    parts = [f"{plan.cache_bytes_per_token:,} bytes a token"]
    parts += [f"{each:,} a token of the last {window:,}" for window, each in plan.windowed]
    if plan.state_bytes_per_sequence:
        parts.append(f"{plan.state_bytes_per_sequence:,} a sequence")
    if plan.cache_share < 1:
        parts.append(f"{plan.cache_share:.0%} of it: states lie apart from keys and values here")
    if plan.request.cache_limit_bytes:
        parts.append(f"held to {_gib(plan.request.cache_limit_bytes)}")
    return ", ".join(parts)


def refusal(name: str, shape: ModelShape, plan: MemoryPlan, chip_name: str, chips: int = 64) -> str:
    """Why a plan does not fit, and what would: the text that the plugin raises and `ascend plan` prints."""
    request = plan.request
    needed = plan.budget_bytes - plan.cache_bytes + plan.bytes_of_request(request.block_size)
    text = (
        f"{name} does not fit {chip_name} at tensor-parallel size {request.tensor_parallel_size}: a chip would need "
        f"{_gib(needed)} ({_gib(plan.weights_bytes)} of {request.weight_format} weights, "
        f"{_gib(plan.activation_bytes)} of activations, {_gib(plan.graph_bytes + plan.runtime_bytes)} of graphs and "
        f"runtime) of the {_gib(plan.budget_bytes)} it may use "
        f"({_gib(request.chip_bytes)} x {request.memory_fraction:g})."
    )
    smallest = smallest_that_fits(shape, request, chips)
    if smallest is None:
        return f"{text} No tensor-parallel size up to {chips} makes it fit."
    remedy = f" Use --tensor-parallel-size {smallest.request.tensor_parallel_size}"
    return f"{text}{remedy} ({_gib(smallest.weights_bytes)} of weights, cache for {smallest.cache_tokens:,} tokens)."


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"
