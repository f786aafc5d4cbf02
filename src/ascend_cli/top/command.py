"""`ascend top`: the command line, and the picture it draws."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import OK, UsageError

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from ascend_cli.top.sample import Sample


def top(
    url: Annotated[str, typer.Option(help="The server to watch.")] = "http://localhost:8000",
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, metavar="SECONDS", help="Time between samples.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and stop.")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with the server's API key, if its /metrics wants one.")
    ] = None,
    export: Annotated[
        str,
        typer.Option(metavar="[HOST:]PORT", help="Serve the chips' figures to Prometheus instead, at /metrics."),
    ] = "",
    json: options.Json = False,
) -> int:
    """Chips (memory, utilisation, temperature) beside the served model's tokens a second, queue and cache.

    Ctrl-C ends it.

    --json prints one sample, taken over one interval.
    """
    import time

    if export:
        return _export(export)
    from ascend_cli.output import console, emit_json
    from ascend_cli.secret import read_key
    from ascend_cli.top.sample import rates, take

    key = None if api_key_file is None else read_key(api_key_file)
    first = take(url, api_key=key)
    if not first.chips and not first.server_answers:
        raise UsageError(
            f"{first.chips_problem or 'npu-smi shows no chip'}, and no server answers at {url}: "
            "start one with `ascend serve`, or give --url"
        )
    time.sleep(min(interval_s, 1.0) if once or json else 0.2)
    second = take(url, api_key=key)
    if json:
        emit_json({"schema": "ascend.top/1", "sample": second, "rates": rates(first, second)})
        return OK
    if once:
        console().print(draw(url, first, second))
        return OK
    from rich.live import Live

    try:
        with Live(
            draw(url, first, second), console=console(), screen=console().is_terminal, auto_refresh=False
        ) as live:
            while True:
                time.sleep(interval_s)
                first, second = second, take(url, api_key=key)
                live.update(draw(url, first, second), refresh=True)
    except KeyboardInterrupt:
        return OK


def _export(address: str) -> int:
    """Serve until Ctrl-C. Raises UsageError where there is no chip to tell of."""
    from ascend_cli.hardware import Host
    from ascend_cli.hardware.npu_smi import NpuSmiError
    from ascend_cli.output import notice
    from ascend_cli.top.export import parse_address, server

    where = parse_address(address)
    try:
        found = Host().npu_smi()
    except NpuSmiError as error:
        raise UsageError(f"npu-smi does not tell of the chips here ({error}): `ascend doctor`") from error
    with server(where) as serving:
        notice(f"{len(found.chips)} chips at http://{where[0]}:{where[1]}/metrics; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            serving.serve_forever()
    return OK


def draw(url: str, first: Sample, second: Sample) -> Group:
    """Both tables, for a terminal."""
    from rich.console import Group
    from rich.text import Text

    from ascend_cli.output import console
    from ascend_cli.tables import fitting

    out = console()
    parts: list[RenderableType] = [*fitting(out, _chips(second)), *fitting(out, _server(url, first, second))]
    if second.emulated:
        parts.append(Text("These chips are emulated: times and temperatures are not a chip's.", style="yellow"))
    return Group(*parts)


def _bar(share: float, width: int = 20) -> str:
    from ascend_cli.output import can_show

    full, empty = ("█", "░") if can_show("█░") else ("#", ".")
    filled = round(max(0.0, min(1.0, share)) * width)
    return full * filled + empty * (width - filled)


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _chips(sample: Sample) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="Chips", title_justify="left", pad_edge=False)
    for name in ("chip", "card", "name", "health", "AI cores", "memory", "", "temperature", "power"):
        table.add_column(name, justify="right")
    for chip in sample.chips:
        used, total = chip.memory_used_mib, chip.memory_total_mib
        table.add_row(
            str(chip.device_id),
            f"{chip.npu_id}.{chip.chip_id}",
            chip.name,
            chip.health,
            "-" if chip.utilization_percent is None else f"{chip.utilization_percent:.0f} %",
            _bar(used / total) if used is not None and total else "-",
            f"{_mib(used)} / {_mib(total)} MiB",
            "-" if chip.temperature_c is None else f"{chip.temperature_c:.0f} C",
            "-" if chip.power_w is None else f"{chip.power_w:.0f} W",
        )
    if not sample.chips:
        table.add_row("-", "", sample.chips_problem or "none", "", "", "", "", "", "")
    return table


def _server(url: str, first: Sample, second: Sample) -> Table:
    from rich import box
    from rich.table import Table

    from ascend_cli.top.sample import rates

    table = Table(box=box.SIMPLE_HEAD, title="Server", title_justify="left", show_header=False, pad_edge=False)
    table.add_row("address", url)
    if not second.server_answers:
        table.add_row("", "no server answers here")
        return table
    now = rates(first, second)
    table.add_row("generated", f"{now['generated_tokens_per_s']:,.1f} tokens/s")
    table.add_row("prompts", f"{now['prompt_tokens_per_s']:,.1f} tokens/s")
    table.add_row("running, waiting", f"{second.running:.0f}, {second.waiting:.0f}")
    several = len(second.engines) > 1
    for engine in second.engines:
        title = f"cache of engine {engine.name}" if several else "cache"
        queue = f"   {engine.running:.0f} running, {engine.waiting:.0f} waiting" if several else ""
        table.add_row(title, f"{_bar(engine.cache_share)} {engine.cache_share:.1%}{queue}")
    table.add_row("mean time to first token", f"{now['ttft_ms']:,.0f} ms" if now["ttft_ms"] is not None else "-")
    table.add_row("mean time per output token", f"{now['tpot_ms']:,.1f} ms" if now["tpot_ms"] is not None else "-")
    return table
