"""A row as the table that `vllm bench` prints and operators publish, with what it leaves out."""

from __future__ import annotations

from ascend_cli.bench.judge import RooflineShare, Slo, goodput, notes_of, roofline_share
from ascend_cli.bench.results import Latency, Row

WIDTH = 50
SECTIONS = (
    ("Time to First Token", "TTFT", "ttft_ms"),
    ("Time per Output Token (excl. 1st token)", "TPOT", "tpot_ms"),
    ("Inter-token Latency", "ITL", "itl_ms"),
)


def _line(name: str, value: str) -> str:
    return f"{name:<40} {value:<10}"


def serving_table(row: Row, slo: Slo | None = None) -> str:
    """The serving table of a row's typical run; the roofline's share and goodput follow it."""
    run, load = row.typical, row.workload
    lines = [f"{' Serving Benchmark Result ':=^{WIDTH}}"]
    lines.append(_line("Successful requests:", str(run.completed)))
    lines.append(_line("Failed requests:", str(run.failed)))
    if load.concurrency:
        lines.append(_line("Maximum request concurrency:", str(load.concurrency)))
    if load.request_rate:
        lines.append(_line("Request rate configured (RPS):", f"{load.request_rate:.2f}"))
    lines.append(_line("Benchmark duration (s):", f"{run.duration_s:.2f}"))
    lines.append(_line("Total input tokens:", str(run.input_tokens)))
    lines.append(_line("Total generated tokens:", str(run.output_tokens)))
    lines.append(_line("Request throughput (req/s):", f"{run.requests_per_s:.2f}"))
    lines.append(_line("Output token throughput (tok/s):", f"{run.output_tokens_per_s:.2f}"))
    if run.peak_output_tokens_per_s is not None:
        lines.append(_line("Peak output token throughput (tok/s):", f"{run.peak_output_tokens_per_s:.2f}"))
    if run.peak_concurrency is not None:
        lines.append(_line("Peak concurrent requests:", f"{run.peak_concurrency:.2f}"))
    lines.append(_line("Total token throughput (tok/s):", f"{run.total_tokens_per_s:.2f}"))
    for title, short, name in SECTIONS:
        latency: Latency | None = getattr(run, name)
        if latency is not None:
            lines.append(f"{title:-^{WIDTH}}")
            lines.append(_line(f"Mean {short} (ms):", f"{latency.mean:.2f}"))
            lines.append(_line(f"Median {short} (ms):", f"{latency.median:.2f}"))
            lines.append(_line(f"P99 {short} (ms):", f"{latency.p99:.2f}"))
    lines += _extra(row, slo)
    lines.append("=" * WIDTH)
    return "\n".join(lines)


def _extra(row: Row, slo: Slo | None) -> list[str]:
    lines = []
    share = roofline_share(row)
    if share is not None:
        lines.append(f"{'Share of the roofline':-^{WIDTH}}")
        lines += [_line(name, value) for name, value in share_lines(share)]
    if slo is not None:
        reached = goodput(row.typical, slo)
        lines.append(f"{'Goodput':-^{WIDTH}}")
        text = f"{reached.requests_per_s:.2f} ({reached.share:.0%})" if reached else "unknown"
        lines.append(_line("Requests within the SLO (req/s):", text))
    return lines


def share_lines(share: RooflineShare) -> list[tuple[str, str]]:
    lines = [("Decode floor (ms):", f"{share.decode_floor_ms:.2f}")]
    if share.decode_share is not None:
        lines.append(("Decode, share of roofline:", f"{share.decode_share:.1%}"))
    if share.prefill_share is not None:
        lines.append(("Prefill floor (ms):", f"{share.prefill_floor_ms:.2f}"))
        lines.append(("Prefill, share of roofline:", f"{share.prefill_share:.1%}"))
    if share.offline_share is not None:
        lines.append(("Whole run, share of roofline:", f"{share.offline_share:.1%}"))
    return lines


def throughput_table(row: Row) -> str:
    """Every repetition in the form that `vllm bench throughput` prints, then spread and share of the roofline."""
    lines = []
    for number, run in enumerate(row.runs, 1):
        warming = "  (warming up, left out)" if number == 1 and row.warmed_up_first else ""
        lines.append(
            f"Run {number}: Throughput: {run.requests_per_s:.2f} requests/s, "
            f"{run.total_tokens_per_s:.2f} total tokens/s, "
            f"{run.output_tokens_per_s:.2f} output tokens/s{warming}"
        )
    typical = row.typical
    lines.append(f"Total num prompt tokens:  {typical.input_tokens}")
    lines.append(f"Total num output tokens:  {typical.output_tokens}")
    share = roofline_share(row)
    if share is not None:
        lines += [_line(name, value) for name, value in share_lines(share)]
    return "\n".join(lines)


def row_table(row: Row, slo: Slo | None = None) -> str:
    """The table of a row's kind, headed by what it is and followed by its notes."""
    size = row.tensor_parallel_size or "an unknown number of"
    chips = f"{size} x {row.chip}" if row.chip else f"{size} chips of an unknown kind"
    load = row.workload
    head = f"{row.model} on {chips}: {load.input_tokens} tokens in, {load.output_tokens} out, {load.prompts} prompts"
    body = serving_table(row, slo) if row.kind == "serve" else throughput_table(row)
    return "\n".join([head, body, *(f"* {note}" for note in notes_of(row))])
