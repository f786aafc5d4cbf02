"""R15, R13: what `ascend deploy` renders gives a server the time that it takes to end, and starts it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ascend_plugin.service import DRAIN_S

from .results import record

GOLDEN = Path(__file__).parents[1] / "unit" / "cli" / "golden"
GRACE = re.compile(r"(?:stop_grace_period: |terminationGracePeriodSeconds: |TimeoutStopSec=|--stop-timeout )(\d+)")
TEARDOWN_S = 20  # for the engine and its chips, after the last request


@pytest.mark.breaks("compose._server: stop_grace_period of 30s")
def test_the_grace_is_longer_than_the_drain() -> None:
    graces = {}
    for file in sorted(GOLDEN.iterdir()):
        text = file.read_text(encoding="utf-8")
        if found := GRACE.findall(text):
            graces[file.name] = min(map(int, found))
    assert len(graces) >= 8
    short = {name: grace for name, grace in graces.items() if grace < DRAIN_S + TEARDOWN_S}
    assert short == {}
    record("R15", "renderings whose grace fits the drain", len(graces))


@pytest.mark.breaks("systemd.render: Restart=no")
def test_a_server_that_failed_is_started_again() -> None:
    """Exit code 1 (see test_ends) must make each of them act."""
    for file in sorted(GOLDEN.iterdir()):
        text = file.read_text(encoding="utf-8")
        if "TimeoutStopSec" in text:
            assert "Restart=on-failure" in text, file.name
        elif "stop_grace_period" in text:
            assert "restart: unless-stopped" in text, file.name
