"""Choosing: every tensor-parallel size compared, the smallest that fits, the best, and what to tell the user."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ascend_cli.output import gib
from ascend_cli.registry.cards import Model
from ascend_facts.chips import ChipSpec
from ascend_facts.memory_plan import (
    DEFAULT_MEMORY_FRACTION,
    MemoryPlan,
    MemoryRequest,
    WeightFormat,
    explain,
    plan_memory,
    refusal,
    request_on,
)
from ascend_facts.model_results import LANGUAGE_PART, Standing, standing
from ascend_facts.model_shape import ModelShape
from ascend_facts.quantized_format import held_format
from ascend_facts.roofline import Placement, assumptions
from ascend_facts.time_model import errors


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
    servers: int  # machines that one replica takes
    decode_floor_ms: float
    decode_floor_loaded_ms: float
    prefill_floor_ms: float
    modeled_decode_ms: float
    modeled_decode_low_ms: float  # the error bar: four of five predicted measurements lay within as much
    modeled_decode_high_ms: float
    modeled_decode_loaded_ms: float
    modeled_eager_decode_ms: float
    modeled_prefill_ms: float
    modeled_tokens_per_s: float  # all replicas, at the workload's concurrency
    modeled_saturated_tokens_per_s: float  # all replicas, each with as many requests as its cache holds


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
    standing: Standing

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
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    batched_tokens: int = 0  # of a step; 0 is what a server takes by itself
    sequences: int = 0
    cache_limit_bytes: int = 0

    @property
    def copies(self) -> int:
        """Groups of tensor-parallel chips that one server takes: its pipeline's stages, its replicas' each."""
        return self.pipeline_parallel_size * self.data_parallel_size


def weight_formats(chip: ChipSpec) -> list[WeightFormat]:
    return list(assumptions()["weight_formats"][chip.family])


def checkpoint_format(shape: ModelShape, chip: ChipSpec) -> WeightFormat:
    """How the checkpoint's weights will lie in the chip's memory."""
    return held_format(shape.stored, chip, shape.dtype_on(chip), shape.has_experts)


def make_plan(question: PlanRequest) -> Plan:
    """Compare every size that the model's heads allow on the chips at hand."""
    shape, chip = question.model.shape, question.chip
    sizes = [size for size in _sizes(question.chips // question.copies) if shape.splits_into(size)] or [1]
    if question.tensor_parallel_size:
        sizes = sorted({*sizes, question.tensor_parallel_size})
    choices = tuple(_choice(question, shape, size, question.weight_format) for size in sizes)
    smallest = next((choice.tensor_parallel_size for choice in choices if choice.fits), None)
    best = question.tensor_parallel_size or _best(choices)
    shown = best or sizes[-1]
    memory = plan_memory(shape, memory_request(question, shown))
    quantized = _quantized(question, shape)
    known = standing(shape, chip)
    servable = bool(best) and memory.fits and known.outcome != "refused" and _on_one_server(question, shown)
    return Plan(
        model=question.model.name,
        source=question.model.source,
        architecture=shape.architecture,
        parameters=shape.parameters,
        parameters_per_token=shape.parameters_per_token,
        chip=chip.name,
        chips=question.chips,
        workload=question.workload,
        choices=choices,
        smallest=smallest,
        best=best,
        arithmetic=tuple(explain(memory)),
        quantized=quantized,
        placement=place(chip, question.chips, shown * question.copies) if best else (),
        advice=tuple(_advice(question, shape, choices, smallest, best, quantized, memory, known)),
        serve=_serve_command(question, shown, memory) if servable else None,
        standing=known,
    )


def _on_one_server(question: PlanRequest, ranks: int) -> bool:
    """Whether `ascend serve` on one machine can start it; HCCL of some chips joins those of one server only."""
    chip = question.chip
    return chip.server_link is None or ranks * question.copies <= chip.chips_per_server


def _sizes(chips: int) -> list[int]:
    """Powers of two up to the chips at hand, and all of them."""
    chips = max(1, chips)
    sizes = [1 << power for power in range(chips.bit_length()) if 1 << power <= chips]
    return sizes if chips in sizes else [*sizes, chips]


def memory_request(question: PlanRequest, ranks: int, weight_format: WeightFormat | None = None) -> MemoryRequest:
    """What a question means for one tensor-parallel size, in the question's format of weights or another.

    The chips of a Duo card differ in memory: the smallest of the first replica's decides, as it does in vLLM.
    """
    return request_on(
        question.chip,
        ranks,
        weight_format or question.weight_format,
        memory_fraction=question.memory_fraction,
        batched_tokens=question.batched_tokens,
        sequences=question.sequences,
        pipeline_parallel_size=question.pipeline_parallel_size,
        cache_limit_bytes=question.cache_limit_bytes,
    )


def _choice(question: PlanRequest, shape: ModelShape, ranks: int, weight_format: WeightFormat) -> Candidate:
    memory = plan_memory(shape, memory_request(question, ranks, weight_format))
    placement = Placement(shape, question.chip, ranks, weight_format)
    load, context = question.workload, question.context or question.workload.context
    fits = memory.fits and memory.max_context >= context
    engine_chips = ranks * question.pipeline_parallel_size
    replicas = max(1, question.chips // engine_chips)
    each = max(1, -(-load.concurrency // replicas))
    loaded_ms = placement.modeled_decode_ms(each, load.context)
    most = max(1, memory.concurrency(load.context))
    chip = question.chip
    decode_ms = placement.modeled_decode_ms(1, load.context)
    low_ms, high_ms = errors().bounds(decode_ms)
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
        servers=1 if chip.server_link is None else -(-engine_chips // chip.chips_per_server),
        decode_floor_ms=placement.decode_floor_ms(1, load.context),
        decode_floor_loaded_ms=placement.decode_floor_ms(each, load.context),
        prefill_floor_ms=placement.prefill_floor_ms(load.input_tokens),
        modeled_decode_ms=decode_ms,
        modeled_decode_low_ms=low_ms,
        modeled_decode_high_ms=high_ms,
        modeled_decode_loaded_ms=loaded_ms,
        modeled_eager_decode_ms=placement.modeled_eager_decode_ms(1, load.context),
        modeled_prefill_ms=placement.modeled_prefill_ms(load.input_tokens),
        modeled_tokens_per_s=1e3 * load.concurrency / loaded_ms,
        modeled_saturated_tokens_per_s=1e3 * most * replicas / placement.modeled_decode_ms(most, load.context),
    )


def _best(choices: tuple[Candidate, ...]) -> int | None:
    """The smallest size that fits, doubled for as long as a doubling is worth its chips and stays on one server."""
    fitting = [choice for choice in choices if choice.fits]
    if not fitting:
        return None
    best = fitting[0]
    for choice in fitting[1:]:
        speedup = best.modeled_decode_ms / choice.modeled_decode_ms
        doubled = choice.tensor_parallel_size == 2 * best.tensor_parallel_size and choice.servers == best.servers
        if doubled and speedup >= assumptions()["advice"]["worthwhile_speedup"]:
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
    known: Standing,
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
        widest = plan_memory(shape, memory_request(question, choices[-1].tensor_parallel_size))
        lines.append(
            _context_too_long(name, widest, question) if widest.fits else refusal(name, shape, widest, chip.name)
        )
    elif smallest > 1:
        single = plan_memory(shape, memory_request(question, 1))
        lines.append(
            f"{name} in {question.weight_format} needs at least {smallest} {chip.name} chips: "
            f"{gib(single.weights_bytes)} of weights, {gib(single.budget_bytes)} usable on one chip."
        )
    if known.outcome == "refused":
        lines.append(f"{name} is not served on {chip.name}: {known.detail}.")
    elif known.outcome == "not run yet":
        lines.append(f"{known.detail}.")
    elif shape.architecture in LANGUAGE_PART:
        lines.append(f"{name}: {known.detail}.")
    if not shape.is_counted:
        lines.append(
            f"The layers of {shape.model_type} are counted in the commonest form: no published total holds the count."
        )
    if smallest is not None and best and by_size[best].fits:
        lines.extend(_about_splits(question, by_size, smallest, best))
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


def _about_splits(question: PlanRequest, by_size: dict[int, Candidate], smallest: int, best: int) -> list[str]:
    """What more chips for one server buy at this load, what servers side by side give at their most, and servers."""
    lines = []
    base, chosen = by_size[smallest], by_size[best]
    if chosen.servers > 1:
        link = question.chip.server_link
        through = f" through {link.kind}" if link else ""
        lines.append(
            f"Size {best} takes {chosen.servers} servers of {question.chip.chips_per_server} chips{through}: "
            "`ascend serve` starts one machine, so start it with vLLM's --nnodes or Ray."
        )
    widest = by_size[max(size for size, choice in by_size.items() if choice.fits and choice.servers == chosen.servers)]
    if widest.tensor_parallel_size > best:
        lines.append(_about_wider(question, chosen, widest))
    elif base.replicas > 1 and base.modeled_saturated_tokens_per_s > chosen.modeled_saturated_tokens_per_s:
        lines.append(
            f"Size {best} is the faster for each request. With all caches full, {base.replicas} servers at size "
            f"{smallest} give more: {base.modeled_saturated_tokens_per_s:,.0f} tok/s against "
            f"{chosen.modeled_saturated_tokens_per_s:,.0f} (modelled)."
        )
    return lines


def _about_wider(question: PlanRequest, chosen: Candidate, wide: Candidate) -> str:
    """What the widest split would buy over the chosen one: for a request alone, and with every cache full."""
    name, size = question.model.name, wide.tensor_parallel_size
    speedup = chosen.modeled_decode_ms / wide.modeled_decode_ms
    alone = f"a request alone is {speedup:.1f}x as fast for {size // chosen.tensor_parallel_size}x the chips"
    busy, chosen_busy = wide.modeled_saturated_tokens_per_s, chosen.modeled_saturated_tokens_per_s
    if busy > chosen_busy:
        return (
            f"Tensor-parallel size {size} for {name}: {alone}; with all caches full {busy:,.0f} tok/s against "
            f"{chosen_busy:,.0f} (modelled)."
        )
    servers = f"{chosen.replicas} servers at size {chosen.tensor_parallel_size}"
    measured = ""
    if (question.chip.name, chosen.tensor_parallel_size, size, name) == ("310P3", 1, 4, "qwen3-0.6b"):
        ratio = assumptions()["published"]["tp4_over_tp1"]
        measured = (
            f" Measured on two Atlas 300I Duo cards with vllm-ascend 0.18.0rc1, offline and eager: {ratio:.2f}x the "
            "requests/s of one server at size 1."
        )
    return (
        f"Tensor-parallel size {size} buys next to nothing for {name} where all chips are busy: {busy:,.0f} tok/s "
        f"against {chosen_busy:,.0f} of {servers}; {alone} (all modelled).{measured} Run {servers} instead."
    )


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


def _serve_command(question: PlanRequest, ranks: int, memory: MemoryPlan) -> str:
    model = question.model.folder or question.model.hub_id or question.model.name
    context = min(memory.max_context, question.context or memory.max_context)
    parts = ["ascend serve", str(model), "--"]
    if ranks > 1:
        parts.append(f"--tensor-parallel-size {ranks}")
    if question.pipeline_parallel_size > 1:
        parts.append(f"--pipeline-parallel-size {question.pipeline_parallel_size}")
    if question.data_parallel_size > 1:
        parts.append(f"--data-parallel-size {question.data_parallel_size}")
    if question.memory_fraction != DEFAULT_MEMORY_FRACTION:
        parts.append(f"--gpu-memory-utilization {question.memory_fraction:g}")
    parts.append(f"--max-model-len {context}")
    return " ".join(parts)


def compare_chips(question: PlanRequest, chip_list: tuple[ChipSpec, ...]) -> list[Plan]:
    """The same question for every chip of the table, each in the format its checkpoint would have there."""
    shape = question.model.shape
    return [
        make_plan(replace(question, chip=chip, weight_format=checkpoint_format(shape, chip), tensor_parallel_size=None))
        for chip in chip_list
    ]
