"""`ascend emulate`: run any command on emulated chips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import UsageError

INSTALL = "the emulator is not installed: `pip install ./emulator` in this repository"


def emulate(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND", help="What to run.")] = None,
    chip: Annotated[str, typer.Option(help="Which chip: 310P3, 910B3, 910_9391, 950PR ...")] = "310P3",
    count: Annotated[
        int | None, typer.Option(help="How many chips (default: those of the chip's usual server).")
    ] = None,
    memory: Annotated[int | None, typer.Option(metavar="MIB", help="Usable memory of a chip.")] = None,
    clock: Annotated[
        str, typer.Option(help="functional: compute. skip: do not. timing: take modelled time instead. both.")
    ] = "functional",
    faults: Annotated[Path | None, typer.Option(metavar="FILE", help="Faults to inject, as JSON.")] = None,
    protect_memory: Annotated[
        bool, typer.Option("--protect-memory", help="The host's access to device memory faults, as on hardware.")
    ] = False,
    time_dilation: Annotated[
        float, typer.Option(metavar="K", help="Modelled clocks: a modelled second takes K seconds of the wall clock.")
    ] = 1.0,
    stats: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the chips did to FILE, as JSON.")
    ] = None,
    json: options.Json = False,
) -> int:
    """Run a command, child processes included, on emulated Ascend chips.

    For example `ascend emulate --chip 910B3 --count 8 -- vllm serve MODEL`. The exit code is the command's. --json
    describes the machine: before the command, on standard error, if there is one.
    """
    try:
        from ascend_emulator import launcher
        from ascend_emulator.settings import Settings, SettingsError
    except ImportError as error:
        raise UsageError(INSTALL) from error
    try:
        machine = Settings(chip, count, memory, clock, faults, protect_memory, time_dilation)
        if json:
            _describe(machine, beside_command=bool(command))
        if json and not command:
            return 0
        return int(launcher.run(_found(command or []), machine, stats))
    except SettingsError as error:
        raise UsageError(str(error).rstrip(".")) from error


def _found(command: list[str]) -> list[str]:
    """The command with its program looked up beside this Python too, which need not be on the search path."""
    from ascend_cli.hardware.host import beside_python

    program = beside_python(command[0]) if command and "/" not in command[0] else None
    return [str(program), *command[1:]] if program else command


def _describe(machine: object, beside_command: bool) -> None:
    import json
    import sys

    spec = machine.spec  # type: ignore[attr-defined] # of ascend_emulator, which is optional
    description = {
        "schema": "ascend.emulate/1",
        "emulated": True,
        "chip": spec.name,
        "count": machine.chip_count,  # type: ignore[attr-defined]
        "memory_mib": list(spec.usable_memory_mib),
        "clock": machine.clock,  # type: ignore[attr-defined]
    }
    print(json.dumps(description, indent=2), file=sys.stderr if beside_command else sys.stdout)
