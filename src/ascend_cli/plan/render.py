"""A plan as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from ascend_cli.output import console, gib, milliseconds
from ascend_cli.plan.planner import Candidate, Plan


def show(plan: Plan) -> None:
    out = console()
    load = plan.workload
    active = ""
    if plan.parameters_per_token < 0.8 * plan.parameters:
        active = f", {plan.parameters_per_token / 1e9:.1f} B a token"
    out.print(f"[bold]{plan.model}[/bold] ({plan.architecture}, {plan.parameters / 1e9:.2f} B parameters{active})")
    out.print(
        f"on {plan.chips} x {plan.chip}; {load.input_tokens} tokens in, {load.output_tokens} out, "
        f"{load.concurrency} at once\n"
    )
    out.print(_choices(plan))
    out.print(_arithmetic(plan))
    if plan.quantized:
        out.print(_quantized(plan))
    if plan.placement:
        groups = "  ".join("+".join(str(chip) for chip in group) for group in plan.placement)
        out.print(f"Chips of each server: {groups}")
    for line in plan.advice:
        out.print(f"[yellow]*[/yellow] {line}")
    if plan.serve:
        out.print(f"\n[bold]{plan.serve}[/bold]", soft_wrap=True)
    out.print(
        "[dim]Floors are arithmetic on published peaks. "
        "Modelled times rest on estimates: measure with `ascend bench`.[/dim]"
    )


def _choices(plan: Plan) -> Table:
    table = Table(title="Tensor-parallel sizes", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("TP", "fits", "weights/chip", "cache tokens", "max context", "requests at once"):
        table.add_column(title, justify="right")
    table.add_column("decode floor", justify="right")
    table.add_column("modelled (graph)", justify="right")
    table.add_column("modelled (eager)", justify="right")
    table.add_column("prefill floor", justify="right")
    table.add_column("tok/s, modelled", justify="right")
    for choice in plan.choices:
        mark = " *" if choice.tensor_parallel_size == plan.best else ""
        table.add_row(
            f"{choice.tensor_parallel_size}{mark}",
            "yes" if choice.fits else "[red]no[/red]",
            gib(choice.weights_bytes),
            f"{choice.cache_tokens:,}",
            f"{choice.max_context:,}",
            str(choice.max_concurrency),
            milliseconds(choice.decode_floor_ms),
            milliseconds(choice.modelled_decode_ms),
            milliseconds(choice.modelled_eager_decode_ms),
            milliseconds(choice.prefill_floor_ms),
            f"{choice.modelled_tokens_per_s:,.0f} ({choice.replicas} x)" if choice.fits else "-",
        )
    return table


def _arithmetic(plan: Plan) -> Table:
    size = plan.best or plan.choices[-1].tensor_parallel_size
    table = Table(title=f"Memory of one chip at size {size}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("size", justify="right")
    table.add_column("from")
    for name, size_bytes, origin in plan.arithmetic:
        table.add_row(name, gib(size_bytes), origin)
    return table


def _quantized(plan: Plan) -> Table:
    table = Table(title="Smaller weights", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("format", "smallest TP", "weights/chip", "max context", "decode floor"):
        table.add_column(title, justify="right")
    for choice in plan.quantized:
        table.add_row(*_quantized_row(choice))
    return table


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
    table = Table(
        title=f"{plans[0].model} on {plans[0].chips} chips of each kind",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in (
        "chip",
        "format",
        "smallest TP",
        "best TP",
        "max context",
        "decode floor",
        "modelled",
        "prefill floor",
    ):
        table.add_column(title, justify="right")
    for plan in plans:
        choice = plan.best_choice
        if choice is None:
            table.add_row(plan.chip, plan.choices[-1].weight_format, "[red]does not fit[/red]", "", "", "", "", "")
            continue
        table.add_row(
            plan.chip,
            choice.weight_format,
            str(plan.smallest),
            str(plan.best),
            f"{choice.max_context:,}",
            milliseconds(choice.decode_floor_ms),
            milliseconds(choice.modelled_decode_ms),
            milliseconds(choice.prefill_floor_ms),
        )
    out.print(table)
    out.print("[dim]Modelled times rest on estimates: measure with `ascend bench`.[/dim]")
