"""A plan as tables for the terminal; as lists where it is too narrow for a table, so that no figure is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.padding import Padding
from rich.table import Table

from ascend_cli.output import console, gib, milliseconds
from ascend_cli.plan.planner import Candidate, Plan
from ascend_facts.time_model import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

SIZES = (
    "TP",
    "fits",
    "weights a chip",
    "cache tokens",
    "max context",
    "requests at once",
    "decode floor",
    "modelled",
    "prefill floor",
    "tok/s now",
    "tok/s, full",
)


def show(plan: Plan) -> None:
    out = console()
    load = plan.workload
    active = ""
    if plan.parameters_per_token < 0.8 * plan.parameters:
        active = f", {plan.parameters_per_token / 1e9:.1f} B a token"
    out.print(f"[bold]{plan.model}[/bold] ({plan.architecture}, {plan.parameters / 1e9:.2f} B parameters{active})")
    out.print(
        f"on {plan.chips} x {plan.chip}; {load.input_tokens} tokens in, {load.output_tokens} out, "
        f"{load.concurrency} at once; {plan.standing.outcome}\n"
    )
    _table(out, "Tensor-parallel sizes", SIZES, [_size_row(plan, choice) for choice in plan.choices])
    _arithmetic(out, plan)
    if plan.quantized:
        titles = ("format", "smallest TP", "weights a chip", "max context", "decode floor")
        _table(out, "Smaller weights", titles, [_quantized_row(choice) for choice in plan.quantized])
    if plan.placement:
        groups = "  ".join("+".join(str(chip) for chip in group) for group in plan.placement)
        out.print(f"Chips of each server: {groups}")
    for line in plan.advice:
        out.print(f"[yellow]*[/yellow] {line}")
    if plan.serve:
        out.print(f"\n[bold]{plan.serve}[/bold]", soft_wrap=True)
    out.print(
        "[dim]Floors are arithmetic on published peaks. Modelled: times of decoding in graphs, and tokens a second of "
        f"all chips with {load.concurrency} requests now and with every cache full. {_error_bar(plan)} Measure with "
        "`ascend bench`.[/dim]"
    )


def _error_bar(plan: Plan) -> str:
    """How far the model was off for measurements of others, and what that makes of the best size's time."""
    known = errors()
    bar = (
        f"Of {known.rows} public measurements of graphs that it had not seen, the model missed half by at most "
        f"{known.half:.0%} and four in five by at most {known.most:.0%}"
    )
    choice = plan.best_choice
    if choice is None:
        return f"{bar}."
    low, high = milliseconds(choice.modeled_decode_low_ms), milliseconds(choice.modeled_decode_high_ms)
    return f"{bar}: {low} to {high} at size {choice.tensor_parallel_size}."


def _table(out: Console, title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table where it fits the terminal's width; else one line a figure, a block a row."""
    widths = [
        max(len(name.split(" ")[0]), *(len(row[index].removeprefix("[red]").removesuffix("[/red]")) for row in rows))
        for index, name in enumerate(titles)
    ]
    if sum(widths) + 3 * len(titles) <= out.width:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, width in zip(titles, widths, strict=True):
            table.add_column(name, justify="right", min_width=width)
        for row in rows:
            table.add_row(*row)
        out.print(table)
        return
    out.print(f"[italic]{title}[/italic]")
    for row in rows:
        for name, value in zip(titles, row, strict=True):
            out.print(f"  {name}: {value}", soft_wrap=True)
        out.print()


def _size_row(plan: Plan, choice: Candidate) -> tuple[str, ...]:
    mark = " *" if choice.tensor_parallel_size == plan.best else ""
    return (
        f"{choice.tensor_parallel_size}{mark}",
        "yes" if choice.fits else "[red]no[/red]",
        gib(choice.weights_bytes),
        f"{choice.cache_tokens:,}",
        f"{choice.max_context:,}",
        str(choice.max_concurrency),
        milliseconds(choice.decode_floor_ms),
        milliseconds(choice.modeled_decode_ms),
        milliseconds(choice.prefill_floor_ms),
        f"{choice.modeled_tokens_per_s:,.0f}" if choice.fits else "-",
        f"{choice.modeled_saturated_tokens_per_s:,.0f}" if choice.fits else "-",
    )


def _arithmetic(out: Console, plan: Plan) -> None:
    size = plan.best or plan.choices[-1].tensor_parallel_size
    out.print(f"[italic]Memory of one chip at size {size}[/italic]")
    for name, size_bytes, origin in plan.arithmetic:
        figure = f"  {name:<20}{gib(size_bytes):>10}"
        if out.width < 60:  # where the figure comes from stands below it, or the terminal would cut one of them
            out.print(figure)
            out.print(Padding(f"[dim]{origin}[/dim]", (0, 0, 0, 4)))
        else:
            out.print(f"{figure}  [dim]{origin}[/dim]")
    out.print()


def _quantized_row(choice: Candidate) -> tuple[str, ...]:
    return (
        choice.weight_format,
        str(choice.tensor_parallel_size),
        gib(choice.weights_bytes),
        f"{choice.max_context:,}",
        milliseconds(choice.decode_floor_ms),
    )


def show_chips(plans: list[Plan]) -> None:
    """One line a chip: the smallest and the best size, and what they give."""
    out = console()
    titles = ("chip", "format", "smallest TP", "best TP", "max context", "decode floor", "modelled", "known")
    rows = []
    for plan in plans:
        choice = plan.best_choice
        if choice is None:
            known = plan.standing.outcome
            rows.append((plan.chip, plan.choices[-1].weight_format, "[red]none[/red]", "-", "-", "-", "-", known))
            continue
        rows.append(
            (
                plan.chip,
                choice.weight_format,
                str(plan.smallest),
                str(plan.best),
                f"{choice.max_context:,}",
                milliseconds(choice.decode_floor_ms),
                milliseconds(choice.modeled_decode_ms),
                plan.standing.outcome,
            )
        )
    _table(out, f"{plans[0].model} on {plans[0].chips} chips of each kind", titles, rows)
    bars = errors()
    out.print(
        f"[dim]Modelled times: of {bars.rows} predicted measurements half were within {bars.half:.0%}, four in five "
        f"within {bars.most:.0%}. "
        "Measure with `ascend bench`.[/dim]"
    )
