"""`ascend serve`: plan, fetch, then `vllm serve` with everything after `--` passed through."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import OK, UsageError

if TYPE_CHECKING:
    from ascend_cli.registry.cards import Model


class Hub(StrEnum):
    hf = "hf"
    mirror = "hf-mirror"
    modelscope = "modelscope"


def serve(
    model: options.Model,
    flags: Annotated[list[str] | None, typer.Argument(metavar="-- FLAGS", help="Flags for vllm serve.")] = None,
    hub: Annotated[Hub, typer.Option(help="Where weights come from if they are not here.")] = Hub.hf,
    download_only: Annotated[bool, typer.Option("--download-only", help="Fetch the model and stop.")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with the key that clients must show.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command instead of running it.")] = False,
    json: options.Json = False,
) -> int:
    """Serve MODEL on the chips of this machine; on emulated ones where there is no NPU.

    MODEL is a folder, a hub id, a name (`ascend plan --list`), or smollm2, which needs no hub. Chooses the
    tensor-parallel size, the context that fits, and the tool-call and reasoning parsers; whatever you pass after --
    wins. Listens on this machine alone unless --host is passed. --dry-run and --json print the decision; they fetch,
    build and start nothing.
    """
    import os
    import shlex

    from ascend_cli.net import port_is_taken
    from ascend_cli.output import emit_json, notice
    from ascend_cli.serving import records
    from ascend_cli.serving.decide import is_placeholder, machine_here, model_files, prepare
    from ascend_cli.serving.flags import ServeFlags, without_secrets

    passed = list(flags or [])
    port = ServeFlags.read(without_secrets(passed)[0]).port
    key = _key(api_key_file)
    if download_only:
        found = model_files(model, hub.value)
        emit_json({"schema": "ascend.serve/1", "model": found.name, "folder": found.folder}) if json else print(
            found.folder
        )
        return OK
    known = _known(model, must_be=dry_run or json)
    if not (json or dry_run) and port_is_taken(port):
        raise UsageError(f"port {port} is taken on this machine: choose another with `-- --port PORT`")
    machine = machine_here()
    launch = prepare(known, machine, [*passed, *key]) if known else None  # refused before anything is fetched
    if json or dry_run:
        assert launch is not None and known is not None  # _known raised otherwise
        notices = list(launch.notices)
        if known.folder is not None and is_placeholder(known.folder):
            notices.append(f"{known.folder} holds empty files of weights: no server would start on it.")
        if json:
            emit_json(
                {
                    "schema": "ascend.serve/1",
                    "command": launch.command,
                    "server": launch.server,
                    "notices": notices,
                }
            )
            return OK
        for line in notices:
            notice(line)
        print(shlex.join(launch.command))
        return OK
    launch = prepare(model_files(model, hub.value), machine, [*passed, *key])
    for line in launch.notices:
        notice(line)
    notice("+ " + shlex.join(launch.command))
    records.remember(launch.server)
    os.execve(launch.process[0], launch.process, os.environ | dict(launch.environment))


def _known(model: str, must_be: bool) -> Model | None:
    """The model as far as it is known without fetching; None where only its files can tell and may be fetched."""
    from ascend_cli.serving.decide import known_model

    try:
        return known_model(model, placeholder=must_be)
    except UsageError:
        if must_be or model.count("/") != 1 or model.startswith((".", "/", "~")):
            raise
        return None


def _key(file: Path | None) -> list[str]:
    """The flag for vLLM that carries the key of a file. Raises UsageError for a key that would not close the server."""
    import os

    if file is None:
        if os.environ.get("VLLM_API_KEY", "none").strip() == "":
            raise UsageError("VLLM_API_KEY is set and empty, which would leave the server open: fill it, or unset it")
        return []
    from ascend_cli.secret import read_key

    return [f"--api-key={read_key(file)}"]
