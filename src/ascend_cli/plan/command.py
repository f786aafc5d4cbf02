"""`ascend plan`: the command line of the planner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError

if TYPE_CHECKING:
    from ascend_cli.plan.planner import PlanRequest
    from ascend_facts.chips import ChipSpec
    from ascend_facts.memory_plan import WeightFormat


def plan(
    model: options.OptionalModel = "",
    chip: options.Chip = "",
    chips: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Chips to plan for (default: those here, or 4).")
    ] = None,
    tensor_parallel_size: Annotated[
        int | None,
        typer.Option("--tensor-parallel-size", "--tp", min=1, help="Judge this size instead of choosing one."),
    ] = None,
    pipeline_parallel_size: Annotated[
        int, typer.Option("--pipeline-parallel-size", "--pp", min=1, help="Stages of a pipeline.")
    ] = 1,
    data_parallel_size: Annotated[
        int, typer.Option("--data-parallel-size", "--dp", min=1, help="Replicas inside one server.")
    ] = 1,
    weight_format: Annotated[
        str,
        typer.Option("--weights", help="Format of the weights: fp16, w8a8, w4a16 (default: the checkpoint's)."),
    ] = "",
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 256,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 128,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Context that must fit (default: prompt and answer).")
    ] = None,
    memory_fraction: Annotated[
        float, typer.Option("--gpu-memory-utilization", min=0.05, max=1.0, help="Share of a chip's memory to use.")
    ] = 0.92,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a step (default: what a server takes on this chip).")
    ] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Requests in a step at most.")] = None,
    all_chips: Annotated[bool, typer.Option("--all-chips", help="Compare every known chip.")] = False,
    list_cards: Annotated[bool, typer.Option("--list", help="List the models with a built-in card.")] = False,
    json: options.Json = False,
) -> int:
    """Does a model fit, on how many chips, and how fast can it be?

    Shows the memory arithmetic, the smallest and the best tensor-parallel size, the longest context, decode and
    prefill floors, and what a simple model of time expects. Exit code 1 if the model does not fit or is refused here.
    """
    from ascend_cli.hardware import chip_named
    from ascend_cli.output import emit_json
    from ascend_cli.plan.planner import PlanRequest, Workload, checkpoint_format, compare_chips, make_plan
    from ascend_cli.registry.cards import cards, find_model

    if list_cards:
        return _list_cards(json)
    if not model:
        raise UsageError(
            "name a model: a folder, a hub id, or one of " + ", ".join(list(cards())[:6]) + " (--list for all)"
        )
    found, spec = find_model(model), chip_named(chip)
    question = PlanRequest(
        model=found,
        chip=spec,
        chips=max(
            chips or _chips_here() or 4, (tensor_parallel_size or 1) * pipeline_parallel_size * data_parallel_size
        ),
        workload=Workload(input_len, output_len, concurrency),
        weight_format=_format(weight_format, spec) if weight_format else checkpoint_format(found.shape, spec),
        tensor_parallel_size=tensor_parallel_size,
        memory_fraction=memory_fraction,
        context=max_model_len,
        pipeline_parallel_size=pipeline_parallel_size,
        data_parallel_size=data_parallel_size,
        batched_tokens=max_num_batched_tokens or 0,
        sequences=max_num_seqs or 0,
    )
    _check(question)
    from ascend_cli.plan import render
    from ascend_facts.chips import chips as every_chip

    if all_chips:
        plans = compare_chips(question, every_chip())
        emit_json({"schema": "ascend.plans/1", "plans": plans}) if json else render.show_chips(plans)
        return OK
    answer = make_plan(question)
    if json:
        emit_json({"schema": "ascend.plan/1", "plan": answer})
    else:
        render.show(answer)
    chosen = answer.best_choice
    good = chosen is not None and chosen.fits and answer.standing.outcome != "refused"
    return OK if good else BAD_ANSWER


def _chips_here() -> int:
    from ascend_cli.hardware import chips_here

    return len(chips_here())


def _format(name: str, chip: ChipSpec) -> WeightFormat:
    from ascend_cli.plan.planner import weight_formats

    for weight_format in weight_formats(chip):
        if name == weight_format:
            return weight_format
    raise UsageError(f"--weights {name} does not run on {chip.name}: choose one of {', '.join(weight_formats(chip))}")


def _check(question: PlanRequest) -> None:
    shape, size = question.model.shape, question.tensor_parallel_size
    if size and not shape.splits_into(size):
        raise UsageError(
            f"--tensor-parallel-size {size} cannot divide {question.model.name} ({shape.heads} heads, "
            f"{shape.kv_heads} key-value heads): choose a size that divides both, such as 1, 2 or 4"
        )
    context = question.context or question.workload.context
    if context > shape.max_context:
        raise UsageError(
            f"{context:,} tokens are over the {shape.max_context:,} that {question.model.name} was made for: "
            "ask for less with --max-model-len, --input-len or --output-len"
        )


def _list_cards(json: bool) -> int:
    from ascend_cli.output import console, emit_json
    from ascend_cli.registry.cards import cards

    if json:
        emit_json({"schema": "ascend.cards/1", "cards": {name: card["hub"] for name, card in cards().items()}})
        return OK
    from rich.table import Table

    table = Table("name", "hub id", "parameters", pad_edge=False)
    for name, card in cards().items():
        table.add_row(name, card["hub"], f"{card['parameters_b']:g} B")
    console().print(table)
    return OK
