"""`ascend serve`: plan, fetch, then `vllm serve` with everything after `--` passed through."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import OK, UsageError


class Hub(StrEnum):
    hf = "hf"
    mirror = "hf-mirror"
    modelscope = "modelscope"


def serve(
    model: options.Model,
    flags: Annotated[list[str] | None, typer.Argument(metavar="-- FLAGS", help="Flags for vllm serve.")] = None,
    hub: Annotated[Hub, typer.Option(help="Where weights come from if they are not here.")] = Hub.hf,
    download_only: Annotated[bool, typer.Option("--download-only", help="Fetch the model and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command instead of running it.")] = False,
    json: options.Json = False,
) -> int:
    """Serve MODEL on the chips of this machine; on emulated ones where there is no NPU.

    MODEL is a folder, a hub id, a name (`ascend plan --list`), or smollm2, which needs no hub. Chooses the
    tensor-parallel size, the context that fits, and the tool-call and reasoning parsers; whatever you pass after --
    wins. With --json (which implies --dry-run unless --download-only) prints the decision.
    """
    import os
    import shlex

    from ascend_cli.deploy.service import port_is_taken
    from ascend_cli.output import emit_json, notice
    from ascend_cli.serving import records
    from ascend_cli.serving.decide import machine_here, model_files, option, prepare

    passed = list(flags or [])
    port = option(passed, "--port") or "8000"
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise UsageError(f"--port {port!r} is not a port: give a number from 1 to 65535")
    if not download_only and not dry_run and not json and port_is_taken(int(port)):
        raise UsageError(f"port {port} is taken on this machine: choose another with `-- --port PORT`")
    found = model_files(model, hub.value)
    if download_only:
        emit_json({"schema": "ascend.serve/1", "model": found.name, "folder": found.folder}) if json else print(
            found.folder
        )
        return OK
    launch = prepare(found, machine_here(), passed)
    if json:
        emit_json(
            {"schema": "ascend.serve/1", "command": launch.command, "server": launch.server, "notices": launch.notices}
        )
        return OK
    for line in launch.notices:
        notice(line)
    if dry_run:
        print(shlex.join(launch.command))
        return OK
    notice("+ " + shlex.join(launch.command))
    records.remember(launch.server)
    os.execv(launch.process[0], launch.process)
