"""Carrying a sweep out: a server for each setting, its points measured, the table with knee and SLO marks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ascend_cli import web
from ascend_cli.bench.judge import Slo, goodput, knee, roofline_share
from ascend_cli.bench.results import Row, Run, Workload
from ascend_cli.bench.runner import measure_server, place_of
from ascend_cli.bench.server import find_target
from ascend_cli.bench.sweep import Grid, Setting, missing, open_folder, sweep_setting
from ascend_cli.errors import BAD_ANSWER, OK, AscendError, UsageError

if TYPE_CHECKING:
    from ascend_cli.registry.cards import Model

START_TIMEOUT_S = 1800
STOP_TIMEOUT_S = 60
ENGINE_STOP_TIMEOUT_S = 20
SLO_SHARE = 0.99  # of the requests must meet the objective for a load to count as served within it


@dataclass(frozen=True)
class Asked:
    """What a sweep is of, beside its grid."""

    model: str
    folder: Path
    url: str = ""  # of a server that runs; empty starts one for each setting
    port: int = 8000
    repeat: int = 1
    is_chat: bool = True
    api_key: str | None = field(default=None, repr=False)


def run(asked: Asked, grid: Grid, say: Callable[[str], None]) -> list[Row]:
    """Every point of the grid, measured or kept from an earlier start of the same sweep."""
    served = find_target(asked.url, api_key=asked.api_key) if asked.url else None
    open_folder(
        asked.folder,
        {
            "model": served.root if served else asked.model,
            "url": asked.url,
            "repeat": asked.repeat,
            "endpoint": "chat" if asked.is_chat else "completions",
        },
    )
    workloads = list(grid.workloads())
    rows: list[Row] = []
    for number, setting in enumerate(grid.settings, 1):
        say(f"setting {number} of {len(grid.settings)}: {setting.label}")
        if not missing(asked.folder, setting, workloads):
            rows += sweep_setting(asked.folder, setting, workloads, _never, say)
            continue
        if asked.url:
            rows += _measure(asked, setting, workloads, asked.url, say)
            continue
        try:
            with started_server(asked, setting, say) as address:
                rows += _measure(asked, setting, workloads, address, say)
        except UsageError:
            raise
        except AscendError as error:  # a setting whose server does not start is said, and the others go on
            say(f"{setting.label}: {error}")
            rows += [_failed(asked, setting, workload, str(error)) for workload in workloads]
    return rows


def _failed(asked: Asked, setting: Setting, workload: Workload, why: str) -> Row:
    """A point whose server did not come up: a row of the table, kept in no file, so that it is tried again."""
    runs = (Run.nothing(workload.prompts),)
    return Row("serve", asked.model, workload, runs, settings=dict(setting.options), refused=why)


def _never(workload: Workload) -> Row:
    raise AscendError(f"the point {workload.label} is not there")  # all were, a moment ago


def _measure(
    asked: Asked, setting: Setting, workloads: list[Workload], url: str, say: Callable[[str], None]
) -> list[Row]:
    target = find_target(url, api_key=asked.api_key)
    place = place_of(url, "", setting.tensor_parallel_size, "")
    place.settings.update(dict(setting.options))

    def measure(workload: Workload) -> Row:
        return measure_server(
            target, workload, place, repeat=asked.repeat, warm_up=2, is_chat=asked.is_chat, flags=[], say=say
        )

    return sweep_setting(asked.folder, setting, workloads, measure, say)


@contextmanager
def started_server(asked: Asked, setting: Setting, say: Callable[[str], None]) -> Iterator[str]:
    """A `vllm serve` with a setting, stopped at the end; its output goes to a log in the sweep's folder."""
    from ascend_cli.net import port_is_taken
    from ascend_cli.serving import records
    from ascend_cli.serving.decide import machine_here, model_files, prepare

    if port_is_taken(asked.port):
        raise UsageError(
            f"port {asked.port} is taken on this machine: choose another with --port, or measure it with --url"
        )
    found: Model = model_files(asked.model, "hf")
    launch = prepare(found, machine_here(), [*setting.flags, "--port", str(asked.port)])
    label = re.sub(r"[^A-Za-z0-9=.,-]+", "_", setting.label)[:60]
    log = asked.folder / f"server-{label}.log"
    say(f"starting the server (log: {log}) ...")
    with log.open("w") as output:
        process = subprocess.Popen(
            launch.process,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | dict(launch.environment),
        )
    try:
        _wait(process, asked.port, log)
        records.remember(launch.server)  # our process lives as long as this server does
        yield f"http://localhost:{asked.port}"
    finally:
        stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AscendError(f"the server stopped with exit code {process.returncode}: see the end of {log}")
        try:
            if web.get(f"http://localhost:{port}/health", timeout_s=5).status_code == 200:
                return
        except web.NoAnswer:
            pass
        time.sleep(1)
    raise AscendError(f"the server was not ready after {START_TIMEOUT_S} s: see the end of {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and every process of its session: engines outlive an API server that died, and hold their chips."""
    import psutil

    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    left = [one for one in psutil.process_iter() if _session_of(one.pid) == process.pid]
    _, left = psutil.wait_procs(left, timeout=ENGINE_STOP_TIMEOUT_S)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=ENGINE_STOP_TIMEOUT_S)
    process.wait()


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def show(rows: list[Row], slo: Slo | None, json: bool, folder: Path) -> int:
    """The sweep as a table: one line a point, the knee of each series marked, and the most load within the SLO."""
    from ascend_cli.output import console, emit_json

    lines = list(_lines(rows, slo))
    best = most_load_within(rows, slo) if slo else None
    bad = any(row.refused for row in rows)
    if json:
        emit_json({"schema": "ascend.bench.sweep/1", "folder": folder, "points": lines, "most_load_within_slo": best})
        return BAD_ANSWER if bad else OK
    from rich import box
    from rich.table import Table

    if not lines:
        raise UsageError("the grid has no points: give lengths and a concurrency")
    table = Table(*(name for name in lines[0]), box=box.SIMPLE_HEAD, pad_edge=False)
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line.values()))
    out = console()
    out.print(table)
    if slo:
        out.print(f"Most load within {slo.text}: {best or 'none of these points'}", markup=False)
    out.print(f"Plots: ascend bench report {folder}", markup=False)
    return BAD_ANSWER if bad else OK


def _lines(rows: list[Row], slo: Slo | None) -> Iterator[dict[str, object]]:
    for series in _series(rows):
        for row, past in zip(series, knee(series), strict=True):
            run, share = row.typical, roofline_share(row)
            reached = goodput(run, slo) if slo else None
            yield {
                "setting": ",".join(
                    f"{name}={value}" for name, value in row.settings.items() if name not in ("flags", "root")
                )
                or "default",
                "in/out": f"{row.workload.input_tokens}/{row.workload.output_tokens}",
                "at once": row.workload.concurrency,
                "output tok/s": f"{run.output_tokens_per_s:.1f}",
                "TTFT ms": f"{run.ttft_ms.median:.0f}" if run.ttft_ms else None,
                "TPOT ms": f"{run.tpot_ms.median:.1f}" if run.tpot_ms else None,
                "of roofline": f"{share.decode_share:.1%}" if share and share.decode_share else None,
                "within SLO": f"{reached.share:.0%}" if reached else None,
                "note": f"REFUSED: {row.refused}" if row.refused else past,
            }


def _series(rows: list[Row]) -> list[list[Row]]:
    """Rows that differ in concurrency alone, by rising concurrency."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (tuple(sorted(row.settings.items())), row.workload.input_tokens, row.workload.output_tokens)
        groups.setdefault(key, []).append(row)
    return [sorted(group, key=lambda row: row.workload.concurrency or 0) for group in groups.values()]


def most_load_within(rows: list[Row], slo: Slo) -> str | None:
    """The point of most output tokens a second at which nearly every request met the objective."""
    within = []
    for row in rows:
        reached = goodput(row.typical, slo)
        if reached is not None and reached.share >= SLO_SHARE and not row.refused:
            within.append(row)
    best = max(within, key=lambda row: row.typical.output_tokens_per_s, default=None)
    if best is None:
        return None
    return f"{best.workload.label}, {best.typical.output_tokens_per_s:.1f} output tokens/s"
