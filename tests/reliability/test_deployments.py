"""R15, R13: what `ascend deploy` renders gives a server the time that it takes to end, and starts it again."""

from __future__ import annotations

import re

import pytest

from ascend_cli.cli import run
from ascend_plugin.service import DRAIN_S

from .results import record

GRACE = re.compile(r"(?:stop_grace_period: '?|terminationGracePeriodSeconds: |TimeoutStopSec=|--stop-timeout )(\d+)")
TEARDOWN_S = 20  # for the engine and its chips, after the last request
OF_ONE_MACHINE = ["qwen3-8b", "--model-dir", "/data/qwen3-8b", "--chip", "310P3"]
OF_TWO = ["qwen3-235b-a22b", "--chip", "910B3", "--devices", "0-7", "--nodes", "2", "--target", "k8s"]
RENDERINGS = {  # all but --open, which is an operator's own command for a test network
    "docker": [*OF_ONE_MACHINE, "--target", "docker"],
    "docker of vllm-ascend": [*OF_ONE_MACHINE, "--target", "docker", "--image-of", "vllm-ascend"],
    "compose": [*OF_ONE_MACHINE, "--target", "compose"],
    "compose without a proxy": [*OF_ONE_MACHINE, "--target", "compose", "--no-proxy"],
    "systemd": [*OF_ONE_MACHINE, "--target", "systemd"],
    "k8s": [*OF_ONE_MACHINE, "--target", "k8s"],
    "k8s, cce": [*OF_ONE_MACHINE, "--target", "k8s", "--k8s-flavor", "cce"],
    "k8s, hami": ["qwen3-8b", "--chip", "910B4", "--target", "k8s", "--k8s-flavor", "hami"],
    "k8s on two machines": OF_TWO,
    "k8s by Ray": [*OF_TWO, "--multi-node", "ray"],
}
# What makes each act on exit code 1 (see test_ends); Kubernetes does so unless a Pod says otherwise.
STARTS_AGAIN = {
    "docker": "--restart unless-stopped",
    "compose": "restart: unless-stopped",
    "systemd": "Restart=on-failure",
}


@pytest.fixture
def texts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Every rendering, of the code as it is now."""
    found = {}
    for name, arguments in RENDERINGS.items():
        assert run(["deploy", *arguments]) == 0, name
        found[name] = capsys.readouterr().out
    return found


@pytest.mark.breaks("compose._server: stop_grace_period of 30s")
def test_the_grace_is_longer_than_the_drain(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        graces = [int(seconds) for seconds in GRACE.findall(text)]
        assert graces, f"{name}: the kill comes after the default, which is shorter"
        assert min(graces) >= DRAIN_S + TEARDOWN_S, name
    record("R15", "renderings whose grace fits the drain", len(texts))


@pytest.mark.breaks("systemd.render: Restart=no")
def test_a_server_that_failed_is_started_again(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        wanted = STARTS_AGAIN.get(name.split()[0].strip(","))
        assert wanted is None or wanted in text, name
        assert "restartPolicy: Never" not in text, name
