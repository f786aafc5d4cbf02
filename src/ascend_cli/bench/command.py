"""`ascend bench`: the command lines of throughput, serve, sweep, compare and report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError

if TYPE_CHECKING:
    from ascend_cli.bench.results import Row

app = typer.Typer(
    help="Measure, check that the right thing was measured, compare and report.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[str, typer.Option(help="The server to measure.")]
InputLen = Annotated[int, typer.Option("--input-len", min=1, help="Tokens of a prompt.")]
OutputLen = Annotated[int, typer.Option("--output-len", min=1, help="Tokens of an answer.")]
Repeat = Annotated[int, typer.Option(min=1, max=100, help="Repetitions; their spread is shown.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the rows to this results file.")]
Flags = Annotated[list[str] | None, typer.Argument(metavar="-- FLAGS", help="More flags for vllm bench.")]
Ranks = Annotated[
    int | None, typer.Option("--tensor-parallel-size", "--tp", min=1, help="Chips of one server, for the roofline.")
]
Weights = Annotated[str, typer.Option("--weights", help="Format of the weights, for the roofline: fp16, w8a8 ...")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="File with the server's API key (default: $VLLM_API_KEY).")
]
SloText = Annotated[str, typer.Option("--slo", help="Objective for goodput: ttft:500,tpot:60 (milliseconds).")]


def _say(text: str) -> None:
    from ascend_cli.output import notice

    notice(text)


def _key(file: Path | None) -> str | None:
    from ascend_cli.secret import read_key

    if file is not None:
        return read_key(file)
    return os.environ.get("VLLM_API_KEY") or None  # as the server itself takes it


def _finish(rows: list[Row], output: Path | None, json: bool, slo_text: str) -> int:
    """Print and save rows; a refused one makes the answer bad."""
    from dataclasses import asdict

    from ascend_cli.bench.judge import Slo, goodput, notes_of, roofline_share
    from ascend_cli.bench.results import SCHEMA, save
    from ascend_cli.bench.table import row_table
    from ascend_cli.output import emit_json, notice

    slo = Slo.parse(slo_text) if slo_text else None
    if output is not None:
        save(rows, output)
        notice(f"results: {output}")
    if json:
        judged = [
            asdict(row)
            | {
                "notes": notes_of(row),
                "roofline": roofline_share(row),
                "goodput": goodput(row.typical, slo) if slo else None,
            }
            for row in rows
        ]
        emit_json({"schema": SCHEMA, "rows": judged})
    else:
        for row in rows:
            print(row_table(row, slo))
    refused = next((row.refused for row in rows if row.refused), None)
    if refused:
        notice(f"ascend: refused: {refused}")
    return BAD_ANSWER if refused else OK


@app.command("serve")
def serve(
    flags: Flags = None,
    url: Url = "http://localhost:8000",
    model: Annotated[str, typer.Option(help="Model to ask for (default: the first that the server lists).")] = "",
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer (default: the folder or repository the server loaded).")
    ] = "",
    input_len: InputLen = 256,
    output_len: OutputLen = 128,
    num_prompts: Annotated[
        int | None, typer.Option(min=1, help="Requests of a run (default: 20 for each at once).")
    ] = None,
    concurrency: Annotated[
        str, typer.Option("--max-concurrency", "--concurrency", help="Requests at once: 1,8 makes two rows.")
    ] = "1,8",
    request_rate: Annotated[
        float | None, typer.Option(min=0.01, help="Requests a second, instead of a concurrency.")
    ] = None,
    repeat: Repeat = 1,
    warm_up: Annotated[
        int, typer.Option("--num-warmups", min=0, help="Requests before each run that do not count.")
    ] = 2,
    completions: Annotated[
        bool, typer.Option("--completions", help="Use /v1/completions instead of the chat endpoint.")
    ] = False,
    chip: options.Chip = "",
    tensor_parallel_size: Ranks = None,
    weights: Weights = "",
    api_key_file: KeyFile = None,
    slo: SloText = "",
    output: Output = None,
    json: options.Json = False,
) -> int:
    """Measure a running server: the table of `vllm bench serve`, its tokens checked, with its share of the roofline."""
    from ascend_cli.bench.judge import Slo
    from ascend_cli.bench.results import Workload
    from ascend_cli.bench.runner import measure_server, place_of
    from ascend_cli.bench.server import find_target
    from ascend_cli.bench.sweep import parse_numbers

    if slo:
        Slo.parse(slo)
    levels: list[int | None] = [None] if request_rate else list(parse_numbers(concurrency, "--max-concurrency"))
    target = find_target(url, model, tokenizer, _key(api_key_file))
    place = place_of(url, _chip_name(chip), tensor_parallel_size, _weights(weights))
    rows = []
    for level in levels:
        workload = Workload(input_len, output_len, num_prompts or 20 * (level or 8), level, request_rate)
        rows.append(
            measure_server(
                target,
                workload,
                place,
                repeat=repeat,
                warm_up=warm_up,
                is_chat=not completions,
                flags=flags or [],
                say=_say,
            )
        )
    return _finish(rows, output, json, slo)


@app.command("throughput")
def throughput(
    model: options.Model,
    flags: Flags = None,
    input_len: InputLen = 256,
    output_len: OutputLen = 128,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts of a run.")] = 200,
    repeat: Repeat = 3,
    chip: options.Chip = "",
    tensor_parallel_size: Ranks = None,
    weights: Weights = "",
    output: Output = None,
    json: options.Json = False,
) -> int:
    """Measure offline throughput with an engine of its own, several times: the first run often only warms up."""
    from ascend_cli.bench.results import Workload
    from ascend_cli.bench.runner import measure_offline, place_here
    from ascend_cli.serving.decide import emulated_cache_limit, model_files

    found = model_files(model, "hf", placeholder=True)  # `--load-format dummy` is measured too; vLLM judges it
    place = place_here(_chip_name(chip), tensor_parallel_size, _weights(weights), flags or [])
    passed = [*(emulated_cache_limit(flags or []) if place.emulated else []), *(flags or [])]
    row = measure_offline(
        found.name,
        str(found.folder),
        Workload(input_len, output_len, num_prompts),
        place,
        repeat=repeat,
        flags=passed,
        say=_say,
    )
    return _finish([row], output, json, "")


@app.command("sweep")
def sweep(
    model: options.Model,
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the points; a stopped sweep goes on from it.")
    ] = Path("sweep"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Server option and values, repeatable: tensor-parallel-size=1,2.")
    ] = None,
    input_len: Annotated[str, typer.Option("--input-len", help="Prompt lengths: 256,1024.")] = "256",
    output_len: Annotated[str, typer.Option("--output-len", help="Answer lengths.")] = "128",
    concurrency: Annotated[
        str, typer.Option("--max-concurrency", "--concurrency", help="Requests at once: 1,2,4,8.")
    ] = "1,2,4,8",
    prompts_per_slot: Annotated[int, typer.Option(min=1, help="Requests of a run for each at once.")] = 10,
    repeat: Repeat = 1,
    url: Annotated[str, typer.Option(help="Measure this server instead of starting one for each setting.")] = "",
    api_key_file: KeyFile = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the servers that are started.")] = 8000,
    completions: Annotated[
        bool, typer.Option("--completions", help="Use /v1/completions instead of the chat endpoint.")
    ] = False,
    slo: SloText = "",
    json: options.Json = False,
) -> int:
    """Measure every combination of server settings, lengths and concurrency; label where more load stops paying."""
    from ascend_cli.bench import sweep_run
    from ascend_cli.bench.judge import Slo
    from ascend_cli.bench.sweep import Grid, parse_numbers, parse_settings

    objective = Slo.parse(slo) if slo else None
    grid = Grid(
        settings=parse_settings(settings or []),
        input_tokens=parse_numbers(input_len, "--input-len"),
        output_tokens=parse_numbers(output_len, "--output-len"),
        concurrency=sorted(parse_numbers(concurrency, "--max-concurrency")),
        prompts_per_slot=prompts_per_slot,
    )
    if url and len(grid.settings) > 1:
        raise UsageError("--url measures one server as it is: leave --set out, or let the sweep start its servers")
    asked = sweep_run.Asked(model, folder, url, port, repeat, not completions, _key(api_key_file))
    rows = sweep_run.run(asked, grid, _say)
    return sweep_run.show(rows, objective, json, folder)


@app.command("compare")
def compare(
    a: Annotated[
        str,
        typer.Argument(help="Results file or folder, or `atlas-300i-duo` for the figures that ship with this tool."),
    ],
    b: Annotated[str, typer.Argument(help="The same, to hold against it.")],
    json: options.Json = False,
) -> int:
    """Hold B against A, point by point. Exit code 1 if something got worse by more than the runs' own spread."""
    from ascend_cli.bench.compare import compare as compare_rows
    from ascend_cli.bench.sources import load
    from ascend_cli.output import console, emit_json

    found = compare_rows(load(a), load(b))
    if json and found.pairs:
        emit_json({"schema": "ascend.bench.compare/1", "comparison": found})
        return BAD_ANSWER if found.has_regression else OK
    if not found.pairs:
        raise UsageError(
            f"{a} and {b} share no point (model, kind, lengths and concurrency): measure B with A's workload"
        )
    from rich import box
    from rich.table import Table

    table = Table("point", "metric", "A", "B", "B / A", "verdict", box=box.SIMPLE_HEAD, pad_edge=False)
    colors = {"better": "green", "worse": "red", "same": "dim", "unknown": "yellow"}
    for change in found.changes:
        verdict = f"[{colors[change.verdict]}]{change.verdict}[/]"
        table.add_row(change.point, change.metric, f"{change.a:.2f}", f"{change.b:.2f}", f"{change.ratio:.2f}", verdict)
    out = console()
    out.print(table)
    for line in [
        *(f"only in A: {name}" for name in found.only_a),
        *(f"only in B: {name}" for name in found.only_b),
        *found.caveats,
    ]:
        out.print(f"* {line}", markup=False)
    return BAD_ANSWER if found.has_regression else OK


@app.command("report")
def report(
    sources: Annotated[
        list[str],
        typer.Argument(help="Results files or folders, and `atlas-300i-duo` to show its figures beside them."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Report without suffix: .md and .html are written.")
    ] = Path("report"),
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Ascend benchmark",
    slo: SloText = "",
    json: options.Json = False,
) -> int:
    """Write results as Markdown and as one self-contained HTML page with plots."""
    from ascend_cli.bench.html import html_report
    from ascend_cli.bench.judge import Slo
    from ascend_cli.bench.markdown import markdown_report
    from ascend_cli.bench.sources import load
    from ascend_cli.output import emit_json

    objective = Slo.parse(slo) if slo else None
    rows = [row for source in sources for row in load(source)]
    files = []
    for suffix, text in (
        (".md", markdown_report(rows, title, objective)),
        (".html", html_report(rows, title, objective)),
    ):
        file = output.with_name(output.name.removesuffix(".html").removesuffix(".md") + suffix)
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{file} cannot be written ({error.strerror}): choose another --output") from error
        files.append(file)
    if json:
        emit_json({"schema": "ascend.bench.report/1", "rows": len(rows), "files": files})
    else:
        print("\n".join(str(file) for file in files))
    return OK


def _weights(name: str) -> str:
    """A format of weights, checked before anything is measured. Raises UsageError."""
    from ascend_facts.quantized_format import BYTES_OF_WEIGHT

    if name and name not in BYTES_OF_WEIGHT:
        raise UsageError(f"--weights {name!r} is no format known here: choose one of {', '.join(BYTES_OF_WEIGHT)}")
    return name


def _chip_name(chip: str) -> str:
    """The canonical name of a chip given on the command line; empty stays empty."""
    from ascend_cli.hardware import chip_named

    return chip_named(chip).name if chip else ""
