"""The columns of a report's summary, one line a row; each form of report writes them in its own markup."""

from __future__ import annotations

from ascend_cli.bench.judge import Slo, goodput, roofline_share
from ascend_cli.bench.results import Row

HEADS = (
    "model",
    "chips",
    "in/out",
    "at once",
    "req/s",
    "output tok/s",
    "spread",
    "TTFT ms",
    "TPOT ms",
    "of roofline",
)


def figures(row: Row, slo: Slo | None) -> list[str | None]:
    """What stands after the model and its chips: a text for each head, and goodput if there is an objective.

    None is a figure that the run did not give.
    """
    run, share = row.typical, roofline_share(row)
    reached = (share.decode_share or share.offline_share) if share else None
    cells = [
        f"{row.workload.input_tokens}/{row.workload.output_tokens}",
        str(row.workload.concurrency or "offline"),
        f"{run.requests_per_s:.2f}",
        f"{run.output_tokens_per_s:.2f}",
        f"{row.spread:.1%}" if len(row.measured) > 1 else "one run",
        f"{run.ttft_ms.median:.1f}" if run.ttft_ms else None,
        f"{run.tpot_ms.median:.2f}" if run.tpot_ms else None,
        f"{reached:.1%}" if reached else None,
    ]
    if slo:
        good = goodput(run, slo)
        cells.append(f"{good.requests_per_s:.2f} ({good.share:.0%})" if good else None)
    return cells
