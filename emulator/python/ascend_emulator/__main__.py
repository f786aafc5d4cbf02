"""`python -m ascend_emulator --chip 310P3 --count 4 -- COMMAND ...`: run a command on emulated chips."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from ascend_emulator import launcher
from ascend_emulator.chips import chips
from ascend_emulator.settings import CLOCKS, DEFAULT_CHIP, Settings, SettingsError

BAD_USAGE = 2


class OneLineParser(argparse.ArgumentParser):
    """argparse, whose answer to a bad value is one sentence."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message.rstrip('.')}.", file=sys.stderr)
        raise SystemExit(BAD_USAGE)


def parser() -> argparse.ArgumentParser:
    known = ", ".join(chip.name for chip in chips())
    result = OneLineParser(
        prog="python -m ascend_emulator",
        description="Run a command, child processes included, on emulated Ascend chips.",
        epilog=f"Chips: {known}. A SoC version (Ascend310P3) or a product (Atlas 300I Duo) names one too.",
    )
    result.add_argument("--chip", default=DEFAULT_CHIP, help="which chip (default: %(default)s)")
    result.add_argument("--count", type=int, help="how many chips (default: those of the chip's usual server)")
    result.add_argument("--memory", type=int, metavar="MIB", help="usable memory of a chip (default: the chip's own)")
    result.add_argument(
        "--clock",
        default="functional",
        help=f"{', '.join(CLOCKS)}: compute, do not, take the modelled time instead, or both (default: %(default)s)",
    )
    result.add_argument(
        "--time-dilation",
        type=float,
        default=1.0,
        metavar="K",
        help="modelled clocks: a modelled second takes K seconds of the wall clock (default: 1)",
    )
    result.add_argument("--faults", type=Path, metavar="FILE", help="faults to inject, as JSON")
    result.add_argument(
        "--protect-memory", action="store_true", help="make the host's access to device memory fault, as on hardware"
    )
    result.add_argument("--lenient", action="store_true", help="without the rules of silicon (docs/strict.md)")
    result.add_argument(
        "--rules",
        default="",
        metavar="LIST",
        help="rules of silicon to enforce, or with - not to: ragged_copy,-int64_add, all",
    )
    result.add_argument("--stats", type=Path, metavar="FILE", help="write what the chips did to FILE, as JSON")
    result.add_argument("command", nargs="*", metavar="-- COMMAND", help="what to run")
    return result


def main(arguments: list[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    try:
        settings = Settings(
            chip=chosen.chip,
            count=chosen.count,
            memory_mib=chosen.memory,
            clock=chosen.clock,
            faults=chosen.faults,
            protect_memory=chosen.protect_memory,
            time_dilation=chosen.time_dilation,
            lenient=chosen.lenient,
            rules=chosen.rules,
        )
        return launcher.run(chosen.command, settings, chosen.stats)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
