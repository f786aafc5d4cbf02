"""Choosing: every tensor-parallel size compared, the smallest that fits, the best, and what to tell the user."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ascend_cli.output import gib
from ascend_cli.registry.cards import Model
from ascend_facts import memory_plan
from ascend_facts.chips import ChipSpec
from ascend_facts.memory_plan import (
    DEFAULT_MEMORY_FRACTION,
    MemoryPlan,
    MemoryRequest,
    WeightFormat,
    explain,
    plan_memory,
    refusal,
)
from ascend_facts.model_shape import ModelShape
from ascend_facts.roofline import Placement, assumptions


@dataclass(frozen=True, slots=True)
class Workload:
    """What the service is for: requests of this size, this many at once."""

    input_tokens: int = 256
    output_tokens: int = 128
    concurrency: int = 8

    @property
    def context(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tensor-parallel size, with its memory and its times. Times in milliseconds; modelled ones say so."""

    tensor_parallel_size: int
    weight_format: str
    fits: bool
    weights_bytes: int
    cache_bytes: int
    cache_tokens: int
    max_context: int
    max_concurrency: int
    replicas: int
    decode_floor_ms: float
    decode_floor_loaded_ms: float
    prefill_floor_ms: float
    modelled_decode_ms: float
    modelled_decode_loaded_ms: float
    modelled_eager_decode_ms: float
    modelled_prefill_ms: float
    modelled_tokens_per_s: float  # all replicas, at the workload's concurrency


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of `ascend plan` for one model on one kind of chip."""

    model: str
    source: str
    architecture: str
    parameters: int
    parameters_per_token: int
    chip: str
    chips: int
    workload: Workload
    choices: tuple[Candidate, ...]
    smallest: int | None
    best: int | None
    arithmetic: tuple[tuple[str, int, str], ...]
    quantized: tuple[Candidate, ...]
    placement: tuple[tuple[int, ...], ...]
    advice: tuple[str, ...]
    serve: str | None

    @property
    def best_choice(self) -> Candidate | None:
        return next((choice for choice in self.choices if choice.tensor_parallel_size == self.best), None)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What `ascend plan` is asked."""

    model: Model
    chip: ChipSpec
    chips: int
    workload: Workload
    weight_format: WeightFormat
    tensor_parallel_size: int | None = None
    memory_fraction: float = DEFAULT_MEMORY_FRACTION
    context: int | None = None


def weight_formats(chip: ChipSpec) -> list[WeightFormat]:
    return list(assumptions()["weight_formats"][chip.family])


def checkpoint_format(shape: ModelShape, chip: ChipSpec) -> WeightFormat:
    """How the checkpoint's weights will lie in the chip's memory."""
    return memory_plan.checkpoint_format(shape.quantization, chip, shape.dtype_on(chip), shape.has_experts)


def make_plan(question: PlanRequest) -> Plan:
    """Compare every size that the model's heads allow on the chips at hand."""
    shape = question.model.shape
    sizes = [size for size in _sizes(question.chips) if shape.splits_into(size)]
    if question.tensor_parallel_size:
        sizes = sorted({*sizes, question.tensor_parallel_size})
    choices = tuple(_choice(question, shape, size, question.weight_format) for size in sizes)
    smallest = next((choice.tensor_parallel_size for choice in choices if choice.fits), None)
    best = question.tensor_parallel_size or _best(choices)
    shown = best or sizes[-1]
    memory = plan_memory(shape, _request(question, shown, question.weight_format))
    quantized = _quantized(question, shape)
    return Plan(
        model=question.model.name,
        source=question.model.source,
        architecture=shape.architecture,
        parameters=shape.parameters,
        parameters_per_token=shape.parameters_per_token,
        chip=question.chip.name,
        chips=question.chips,
        workload=question.workload,
        choices=choices,
        smallest=smallest,
        best=best,
        arithmetic=tuple(explain(memory)),
        quantized=quantized,
        placement=place(question.chip, question.chips, shown) if best else (),
        advice=tuple(_advice(question, shape, choices, smallest, best, quantized, memory)),
        serve=_serve_command(question, best, memory) if best and memory.fits else None,
    )


def _sizes(chips: int) -> list[int]:
    """Powers of two up to the chips at hand, and all of them."""
    sizes = [1 << power for power in range(chips.bit_length()) if 1 << power <= chips]
    return sizes if chips in sizes else [*sizes, chips]


def _request(question: PlanRequest, ranks: int, weight_format: WeightFormat) -> MemoryRequest:
    """The chips of a Duo card differ in memory: the smallest of the first replica's decides, as it does in vLLM."""
    chip = question.chip
    return MemoryRequest(
        tensor_parallel_size=ranks,
        chip_bytes=min(chip.usable_memory_bytes(index) for index in range(ranks)),
        weight_format=weight_format,
        memory_fraction=question.memory_fraction,
        block_size=chip.kv_block_sizes[0],
        has_graphs=chip.has_graphs,
    )


def _choice(question: PlanRequest, shape: ModelShape, ranks: int, weight_format: WeightFormat) -> Candidate:
    memory = plan_memory(shape, _request(question, ranks, weight_format))
    placement = Placement(shape, question.chip, ranks, weight_format)
    load, context = question.workload, question.context or question.workload.context
    fits = memory.fits and memory.max_context >= context
    replicas = max(1, question.chips // ranks)
    each = max(1, -(-load.concurrency // replicas))
    loaded_ms = placement.modelled_decode_ms(each, load.context)
    return Candidate(
        tensor_parallel_size=ranks,
        weight_format=weight_format,
        fits=fits,
        weights_bytes=memory.weights_bytes,
        cache_bytes=memory.cache_bytes,
        cache_tokens=memory.cache_tokens,
        max_context=memory.max_context,
        max_concurrency=memory.concurrency(context),
        replicas=replicas,
        decode_floor_ms=placement.decode_floor_ms(1, load.context),
        decode_floor_loaded_ms=placement.decode_floor_ms(each, load.context),
        prefill_floor_ms=placement.prefill_floor_ms(load.input_tokens),
        modelled_decode_ms=placement.modelled_decode_ms(1, load.context),
        modelled_decode_loaded_ms=loaded_ms,
        modelled_eager_decode_ms=placement.modelled_eager_decode_ms(1, load.context),
        modelled_prefill_ms=placement.modelled_prefill_ms(load.input_tokens),
        modelled_tokens_per_s=1e3 * min(load.concurrency, each * replicas) / loaded_ms,
    )


def _best(choices: tuple[Candidate, ...]) -> int | None:
    """The smallest size that fits, doubled for as long as a doubling is worth its chips."""
    fitting = [choice for choice in choices if choice.fits]
    if not fitting:
        return None
    best = fitting[0]
    for choice in fitting[1:]:
        worthwhile = (
            best.modelled_decode_ms / choice.modelled_decode_ms >= assumptions()["advice"]["worthwhile_speedup"]
        )
        if choice.tensor_parallel_size == 2 * best.tensor_parallel_size and worthwhile:
            best = choice
    return best.tensor_parallel_size


def _quantized(question: PlanRequest, shape: ModelShape) -> tuple[Candidate, ...]:
    """For every smaller format of weights that the chip multiplies with: the smallest size at which it fits.

    None for a model that runs in float32 there, which the plugin refuses to combine with quantized weights.
    """
    if question.weight_format == "fp16+fp32":
        return ()
    found = []
    for weight_format in weight_formats(question.chip):
        if weight_format in ("fp16", question.weight_format):
            continue
        for size in _sizes(question.chips):
            if not shape.splits_into(size):
                continue
            choice = _choice(question, shape, size, weight_format)
            if choice.fits:
                found.append(choice)
                break
    return tuple(found)


def place(chip: ChipSpec, chips: int, ranks: int) -> tuple[tuple[int, ...], ...]:
    """Chips of each replica: consecutive, so that a replica of two sits on one card and shares its link."""
    return tuple(tuple(range(start, start + ranks)) for start in range(0, chips - ranks + 1, ranks))


def _advice(
    question: PlanRequest,
    shape: ModelShape,
    choices: tuple[Candidate, ...],
    smallest: int | None,
    best: int | None,
    quantized: tuple[Candidate, ...],
    memory: MemoryPlan,
) -> list[str]:
    name, chip = question.model.name, question.chip
    by_size = {choice.tensor_parallel_size: choice for choice in choices}
    lines = []
    if question.tensor_parallel_size and not by_size[question.tensor_parallel_size].fits:
        if memory.fits:
            lines.append(_context_too_long(name, memory, question))
        else:
            lines.append(refusal(name, shape, memory, chip.name))
    elif smallest is None:
        request = _request(question, choices[-1].tensor_parallel_size, question.weight_format)
        lines.append(refusal(name, shape, plan_memory(shape, request), chip.name))
    elif smallest > 1:
        single = plan_memory(shape, _request(question, 1, question.weight_format))
        lines.append(
            f"{name} in {question.weight_format} needs at least {smallest} {chip.name} chips: "
            f"{gib(single.weights_bytes)} of weights, {gib(single.budget_bytes)} usable on one chip."
        )
    if smallest is not None:
        lines.extend(_about_wide_splits(question, by_size, smallest))
    lines.extend(_about_formats(question, by_size, quantized, smallest))
    if best and 1 < best <= chip.chips_per_card:
        lines.append(f"Both ranks on one card: chips {_cards(chip, best)} share its {chip.card_link.kind} link.")
    if "bfloat16" not in chip.model_dtypes and shape.dtype == "bfloat16":
        dtype = shape.dtype_on(chip)
        why = ", because its activations exceed float16" if dtype == "float32" else ""
        lines.append(f"{chip.name} has no bfloat16: the checkpoint runs as {dtype}{why}; no flag is needed.")
    return lines


def _context_too_long(name: str, memory: MemoryPlan, question: PlanRequest) -> str:
    wanted = question.context or question.workload.context
    return f"{name}: a request of {wanted:,} tokens is over the {memory.max_context:,} that can be served here."


def _about_wide_splits(question: PlanRequest, by_size: dict[int, Candidate], smallest: int) -> list[str]:
    """Say when chips added to one server would bring little, and what to do with them instead."""
    base, widest = by_size[smallest], max(size for size in by_size if by_size[size].fits)
    wide = by_size[widest]
    speedup = base.modelled_decode_ms / wide.modelled_decode_ms
    eager = base.modelled_eager_decode_ms / wide.modelled_eager_decode_ms
    chips_added = widest // smallest
    if chips_added < 2 or eager >= assumptions()["advice"]["next_to_nothing"]:
        return []
    measured = ""
    if (question.chip.name, smallest, widest, question.model.name) == ("310P3", 1, 4, "qwen3-0.6b"):
        ratio = assumptions()["published"]["tp4_over_tp1"]
        measured = f" (measured on two Atlas 300I Duo cards, vllm-ascend 0.18.0rc1: {ratio:.2f}x the requests/s)"
    return [
        f"Tensor-parallel size {widest} buys next to nothing for {question.model.name}{measured}: eager decode waits "
        f"for the host, {wide.modelled_eager_decode_ms:.0f} ms a token either way "
        f"(floor {wide.decode_floor_ms:.2f} ms); "
        f"with graphs {speedup:.1f}x for {chips_added}x the chips (modelled). "
        f"Run {question.chips // smallest} servers at size {smallest} instead."
    ]


def _about_formats(
    question: PlanRequest, by_size: dict[int, Candidate], quantized: tuple[Candidate, ...], smallest: int | None
) -> list[str]:
    lines = []
    for choice in quantized:
        size = choice.tensor_parallel_size
        against = by_size.get(size)
        if smallest is None or size < smallest:
            lines.append(f"A {choice.weight_format} checkpoint fits at tensor-parallel size {size}.")
        elif against is not None and against.decode_floor_ms > 1.3 * choice.decode_floor_ms:
            lines.append(
                f"A {choice.weight_format} checkpoint lowers the decode floor from {against.decode_floor_ms:.1f} to "
                f"{choice.decode_floor_ms:.1f} ms at tensor-parallel size {size}."
            )
    return lines


def _cards(chip: ChipSpec, ranks: int) -> str:
    return " and ".join(str(index) for index in range(ranks))


def _serve_command(question: PlanRequest, ranks: int | None, memory: MemoryPlan) -> str:
    model = question.model.folder or question.model.hub_id or question.model.name
    context = min(memory.max_context, question.context or memory.max_context)
    parts = ["ascend serve", str(model), "--"]
    if ranks and ranks > 1:
        parts.append(f"--tensor-parallel-size {ranks}")
    parts.append(f"--max-model-len {context}")
    return " ".join(parts)


def compare_chips(question: PlanRequest, chip_list: tuple[ChipSpec, ...]) -> list[Plan]:
    """The same question for every chip of the table, each in the format its checkpoint would have there."""
    shape = question.model.shape
    return [
        make_plan(replace(question, chip=chip, weight_format=checkpoint_format(shape, chip), tensor_parallel_size=None))
        for chip in chip_list
    ]
