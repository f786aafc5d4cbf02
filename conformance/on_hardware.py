"""pytest's `--hardware`: what can run on the card of this machine runs there, the rest says why not; a bundle is left.

The option itself comes with the emulator's pytest plugin, which also starts the processes on the card. This plugin
skips what has no use for a card, probes it, and packs versions, the probe's result and the outcomes into one file.
"""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ON_THE_CHIP_THAT_IS_THERE = "tests/tiny"  # these ask for no fixture: they are the process on the chip
NO_CHIP = "needs no chip: run it without --hardware"
EMULATED = "needs an emulated machine"
OF_THE_EMULATOR = "tests the emulator, which is not on this machine's way"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ascend")
    group.addoption(
        "--bundle", type=Path, help="with --hardware: where to write the bundle (ascend-bundle-SOC-DATE.tar.gz)"
    )
    group.addoption("--no-probe", action="store_true", help="with --hardware: leave out `ascend doctor --probe`")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hardware", default=False):
        config.pluginmanager.register(Collector(config), "ascend-hardware")


class Collector:
    """Skips, outcomes and the bundle of one session on a card."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.written: Path | None = None
        self.complaint = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            reason = why_not(item)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.outcome != "passed" and report.nodeid not in self.outcomes):
            why = report.longrepr
            text = str(why[2]) if isinstance(why, tuple) else (str(why)[-2000:] if why else "")
            if text not in (NO_CHIP, f"Skipped: {NO_CHIP}"):
                self.outcomes[report.nodeid] = {
                    "outcome": report.outcome,
                    "seconds": round(report.duration, 3),
                    "why": text,
                }

    def pytest_sessionfinish(self) -> None:
        try:
            self.written = write_bundle(self.config, self.outcomes)
        except Exception as error:  # the tests' outcome must not be lost for the bundle's sake
            self.complaint = f"{type(error).__name__}: {error}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("bundle")
        if self.written is not None:
            terminalreporter.line(f"{self.written}: attach it to an issue, or read it by `ascend doctor --import`.")
        else:
            terminalreporter.line(f"No bundle was written: {self.complaint}")


def why_not(item: pytest.Item) -> str:
    """Why an item does not run on a card; empty if it does."""
    fixtures = set(getattr(item, "fixturenames", ()))
    path = Path(item.path).resolve()
    if path.is_relative_to(ROOT / "emulator") and "npu" not in fixtures:
        return OF_THE_EMULATOR
    if "npu" in fixtures or path.is_relative_to(ROOT / ON_THE_CHIP_THAT_IS_THERE):
        return ""
    return EMULATED if "emulated" in fixtures else NO_CHIP


def write_bundle(config: pytest.Config, outcomes: dict[str, dict[str, Any]]) -> Path:
    """Probe the card unless told not to, and pack everything."""
    from ascend_cli.doctor import bundle
    from ascend_cli.doctor.probe import run as probing
    from ascend_cli.doctor.probe.case import GROUPS

    groups = ("timing",) if config.getoption("--no-probe") else GROUPS
    result, _ = probing.measured(0, groups, quiet=True)
    today = datetime.now(UTC).date().isoformat()
    path: Path = config.getoption("--bundle") or Path(f"ascend-bundle-{result.of.soc}-{today}.tar.gz")
    about = {
        "date": today,
        "emulated": result.of.emulated,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "versions": probing.versions(),
    }
    bundle.pack(path, about, result.document(), {"tests": outcomes}, npu_smi())
    return path.resolve()


def npu_smi() -> str:
    """What npu-smi says of the machine, or why it says nothing."""
    try:
        done = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"npu-smi: {error}\n"
    return done.stdout + done.stderr
