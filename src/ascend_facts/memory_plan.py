"""Does a model fit on a chip, with the arithmetic: weights, activations, graphs, runtime, and the cache that is left.

Pure functions of a ModelShape: `ascend plan` prints them, the plugin refuses with them before it reads a weight, and
what a real start measures can be compared with them line by line. The marks EST are estimates to be replaced by
measurements; everything else is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ascend_facts.chips import ChipSpec
from ascend_facts.model_shape import BYTES_OF_DTYPE, ModelShape

# fp16+fp32: matrices in fp16, the embedding, the residual stream and all between products in fp32.
WeightFormat = Literal["fp16", "fp32", "fp16+fp32", "fp8", "w8a8", "w4a16"]

BYTES_OF_WEIGHT: dict[str, float] = {"fp32": 4.0, "fp16": 2.0, "fp16+fp32": 2.0, "fp8": 1.0, "w8a8": 1.0, "w4a16": 0.5}
SCALES_SHARE = 0.01  # EST: scales, offsets and biases of a quantized matrix, as a share of its weights

DEFAULT_MEMORY_FRACTION = 0.92  # vLLM 0.32's gpu_memory_utilization
DEFAULT_BATCHED_TOKENS = 2048  # the most that vLLM 0.32 gives a server's step on a chip below 70 GiB
DEFAULT_SEQUENCES = 256  # and its max_num_seqs

RUNTIME_BYTES = 512 << 20  # EST: device context, streams and operator workspaces outside PyTorch's allocator
COLLECTIVE_BUFFER_BYTES = 2 * (200 << 20)  # HCCL_BUFFSIZE is 200 MB, one to send and one to receive
GRAPH_BYTES = 300 << 20  # EST: memory of the captured graphs, all sizes
HIDDEN_COPIES = 8  # EST: hidden-sized tensors alive at the widest point of a layer
WIDE_COPIES = 3  # gate, up and their product
SAMPLED_LOGIT_BYTES = 4  # the fp32 copy of a logit that sampling works on


def checkpoint_format(
    method: str | None, chip: ChipSpec, dtype: str = "float16", has_experts: bool = False
) -> WeightFormat:
    """How most weights of a checkpoint lie in the chip's memory; `method` is its quant_method, or None.

    dtype: what the model runs in ("bfloat16" and "float16" are alike here).
    """
    if dtype == "float32":
        return "fp16+fp32" if chip.rounds_float32_products else "fp32"
    if method in ("ascend", "compressed-tensors"):
        return "w8a8"
    if method in ("awq", "gptq", "auto_awq", "auto_gptq"):
        if "int4" in chip.weight_only_dtypes:
            return "w4a16"
        return "fp16" if has_experts else "w8a8"  # a weight of four bits takes a byte here, and that of an expert two
    return "fp16"  # fp8 weights too: they are dequantized while they are loaded


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
    cache_bytes_per_token: int
    state_bytes_per_sequence: int

    @property
    def fits(self) -> bool:
        """Whether one request of one cache block can be served."""
        return self.cache_bytes >= self.bytes_of_request(self.request.block_size)

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds when one sequence fills it, in whole blocks."""
        free = self.cache_bytes - self.state_bytes_per_sequence
        block_bytes = self.cache_bytes_per_token * self.request.block_size
        return max(0, free // block_bytes) * self.request.block_size if block_bytes else self.model_max_context

    @property
    def max_context(self) -> int:
        """The longest request that can be served: the model's limit or the cache's."""
        return min(self.model_max_context, self.cache_tokens)

    def bytes_of_request(self, context_tokens: int) -> int:
        """Cache of one request of this many tokens, prompt and answer together."""
        blocks = -(-context_tokens // self.request.block_size)
        return blocks * self.request.block_size * self.cache_bytes_per_token + self.state_bytes_per_sequence

    def fits_with_margin(self, cache_bytes: int) -> bool:
        """Whether a cache of this size would fit even if all that is estimated were twice as large."""
        estimated = self.activation_bytes + self.graph_bytes + self.runtime_bytes
        return self.weights_bytes + cache_bytes + 2 * estimated <= self.budget_bytes

    def concurrency(self, context_tokens: int) -> int:
        """Requests of this many tokens that the cache holds at once, within max_num_seqs."""
        return min(self.request.sequences, max(0, self.cache_bytes) // self.bytes_of_request(context_tokens))


def weight_bytes(shape: ModelShape, weight_format: WeightFormat, tensor_parallel_size: int = 1) -> int:
    """Bytes of weights on one rank: split kinds divided, the others copied; only quantized kinds are stored small."""
    full = _value_bytes(weight_format)
    exact = weight_format in ("fp16", "fp32", "fp16+fp32")
    small = BYTES_OF_WEIGHT[weight_format] * (1 if exact else 1 + SCALES_SHARE)
    total = 0.0
    for weights in shape.weights:
        size = weights.parameters * (small if weights.quantized else full)
        total += size / tensor_parallel_size if weights.split else size
    return round(total)


def _value_bytes(weight_format: WeightFormat) -> int:
    """Bytes of an activation, and of a weight that no format makes smaller."""
    return 4 if weight_format in ("fp32", "fp16+fp32") else 2


def plan_memory(shape: ModelShape, request: MemoryRequest) -> MemoryPlan:
    """Divide one chip's memory among what serving `shape` needs."""
    ranks = request.tensor_parallel_size
    value_bytes = BYTES_OF_DTYPE[request.cache_dtype]
    layer_width = HIDDEN_COPIES * shape.hidden_size + WIDE_COPIES * shape.intermediate_size // ranks
    weights = weight_bytes(shape, request.weight_format, ranks)
    width = _value_bytes(request.weight_format)
    logits = request.sequences * shape.vocab_size * (width + SAMPLED_LOGIT_BYTES)
    activations = request.batched_tokens * layer_width * width + logits
    graphs = GRAPH_BYTES if request.has_graphs else 0
    runtime = RUNTIME_BYTES + (COLLECTIVE_BUFFER_BYTES if ranks > 1 else 0)
    budget = int(request.chip_bytes * request.memory_fraction)
    return MemoryPlan(
        request=request,
        model_max_context=shape.max_context,
        budget_bytes=budget,
        weights_bytes=weights,
        activation_bytes=activations,
        graph_bytes=graphs,
        runtime_bytes=runtime,
        cache_bytes=budget - weights - activations - graphs - runtime,
        cache_bytes_per_token=shape.cache_values_per_token(ranks) * value_bytes,
        state_bytes_per_sequence=shape.state_values_per_sequence * value_bytes // ranks,
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
        ("left for the cache", plan.cache_bytes, f"{plan.cache_bytes_per_token:,} bytes a token"),
    ]


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
