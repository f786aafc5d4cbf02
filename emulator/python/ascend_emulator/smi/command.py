"""The command `npu-smi`: -v, info, info -l, info -m, info -t SUBJECT -i CARD [-c CHIP]."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ascend_emulator.activation import emulation_is_wanted
from ascend_emulator.settings import Settings, SettingsError
from ascend_emulator.smi import queries, tables
from ascend_emulator.smi.machine import DRIVER_VERSION, Chip, DriverError, chips

FAILURE = 1
BAD_USAGE = 2
DRIVER_FOLDERS = ("/usr/local/bin", "/usr/local/sbin", "/usr/local/Ascend/driver/tools")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not emulation_is_wanted(os.environ):
            return run_the_real_one(given)
        print(answer(given, Settings.from_environment()), end="")
    except SettingsError as error:
        print(f"npu-smi: {error}", file=sys.stderr)
        return BAD_USAGE
    except DriverError as error:
        print(error)
        return FAILURE
    print("npu-smi: these chips are emulated.", file=sys.stderr)
    return 0


def run_the_real_one(arguments: list[str]) -> int:
    """On a machine with a driver this command only steps aside for the driver's own."""
    own_folder = Path(sys.argv[0]).resolve().parent
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    for folder in [*folders, *DRIVER_FOLDERS]:
        candidate = shutil.which("npu-smi", path=folder)
        if candidate and Path(candidate).resolve().parent != own_folder:
            os.execv(candidate, [candidate, *arguments])
    print("npu-smi: the driver's own npu-smi was not found; ASCEND_EMULATOR=1 shows emulated chips.", file=sys.stderr)
    return FAILURE


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="npu-smi", description="Show emulated Ascend chips.")
    result.add_argument("-v", "--version", action="store_true", help="show the version")
    verbs = result.add_subparsers(dest="verb", title="commands")
    info = verbs.add_parser("info", help="show all chips, or one subject of one card")
    info.add_argument("-l", action="store_true", help="list the cards")
    info.add_argument("-m", action="store_true", help="map chips to device numbers")
    subjects = ["board", "proc-mem", "topo", *queries.SUBJECTS]
    info.add_argument("-t", metavar="SUBJECT", choices=subjects, help="%(choices)s")
    info.add_argument("-i", type=int, metavar="CARD", help="card (NPU ID)")
    info.add_argument("-c", type=int, metavar="CHIP", help="chip on the card (Chip ID)")
    return result


def answer(arguments: Sequence[str], settings: Settings) -> str:
    """What the tool prints for these arguments. Raises SettingsError for a card or chip that is not there."""
    chosen = parser().parse_args(arguments)
    if chosen.version:
        return f"npu-smi version: {DRIVER_VERSION}\n"
    if chosen.verb != "info":
        return parser().format_help()
    machine = chips(settings)
    if chosen.l:
        return queries.card_list(machine)
    if chosen.m:
        return queries.card_map(machine)
    if chosen.t == "topo":
        return queries.topology(machine)
    if chosen.t:
        return subject(chosen, machine)
    return tables.render(machine)


def subject(chosen: argparse.Namespace, machine: Sequence[Chip]) -> str:
    if chosen.i is None:
        raise SettingsError(f"`info -t {chosen.t}` needs a card: add -i NPU_ID (`npu-smi info -l` lists them).")
    card = [chip for chip in machine if chip.npu_id == chosen.i]
    wanted = [chip for chip in card if chosen.c in (None, chip.chip_id)]
    if not wanted:
        known = ", ".join(str(npu_id) for npu_id in sorted({chip.npu_id for chip in machine}))
        name = f"card {chosen.i}" if not card else f"chip {chosen.c} on card {chosen.i}"
        raise SettingsError(f"there is no {name}; the cards are {known}.")
    if chosen.t == "board":
        return queries.fields(queries.board_of_chip(wanted[0]) if chosen.c is not None else queries.board_of_card(card))
    if chosen.t == "proc-mem":
        return queries.processes(wanted)
    return queries.subject_of_card(chosen.t, wanted)


if __name__ == "__main__":
    sys.exit(main())
