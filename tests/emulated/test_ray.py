"""Two machines of a Ray cluster, each with one chip, as two raylets of this one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from ascend_emulator.launcher import Machine

from .assertions import LONG, PROMPTS, TIE, requests, tokens_of, worst_gap
from .conftest import HERE, SMALL

RAY = str(Path(sys.executable).with_name("ray"))
START_TIMEOUT_S = 180
ANSWER_TIMEOUT_S = 600
# Not 127.0.0.1, which Ray takes for the machine's outer address.
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
# Ray gives its own processes 15 to 60 seconds to start, which a busy machine without accelerators exceeds.
PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_raylet_start_wait_time_s": "300",
}
EVERY = [LONG, *PROMPTS]


@contextmanager
def raylet(environment: dict[str, str], address: str, number: int, *arguments: str) -> Iterator[subprocess.Popen]:
    """A node of the cluster that owns chip `number`, at an address of its own, until the block ends."""
    command = [RAY, "start", "--block", "--node-ip-address", address, "--resources", '{"NPU": 1}', "--num-cpus", "1"]
    process = subprocess.Popen(
        [*command, "--object-store-memory", str(100 << 20), *arguments],
        env=environment | {"VLLM_HOST_IP": address, "ASCEND_RT_VISIBLE_DEVICES": str(number)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # SIGTERM drains the node, which has nothing to hand over
        process.wait()


def wait_for_port(address: str, port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.5)
    raise RuntimeError(f"Ray's head did not come up at {address}:{port} (exit status {process.poll()}).")


@pytest.mark.slow
def test_tensor_parallel_over_two_machines(
    emulated: Callable[..., Machine], reference_logits: Callable, qwen3: Path, tmp_path: Path
) -> None:
    """On 910B3, as HCCL on Atlas inference products joins the chips of one server only."""
    pytest.importorskip("ray")
    machine = emulated(chip="910B3", count=2)
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        port = probe.getsockname()[1]
    environment = machine.environment | {"RAY_ADDRESS": f"{HEAD}:{port}", "VLLM_HOST_IP": HEAD}
    options = {**SMALL, "tensor_parallel_size": 2, "distributed_executor_backend": "ray"}
    job, result = tmp_path / "job.json", tmp_path / "answer.json"
    job.write_text(json.dumps([{"model": str(qwen3), "rounds": [requests(*EVERY)], "options": options}]))
    nodes = machine.environment | PATIENT
    with ExitStack() as cluster:
        folder = cluster.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))  # short: it holds Unix sockets
        head = ["--head", "--port", str(port), "--include-dashboard=false", "--temp-dir", folder]
        wait_for_port(HEAD, port, cluster.enter_context(raylet(nodes, HEAD, 0, *head)))
        cluster.enter_context(raylet(nodes, OTHER, 1, "--address", f"{HEAD}:{port}"))
        command = [sys.executable, str(HERE / "engine.py"), str(job), str(result)]
        done = subprocess.run(
            command, env=environment | PATIENT, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S
        )
        assert result.exists(), done.stdout[-4000:] + done.stderr[-8000:]
    tokens = tokens_of(json.loads(result.read_text())[0])
    judged = reference_logits(qwen3, [prompt + answer for prompt, answer in zip(EVERY, tokens, strict=True)])
    assert max(worst_gap(*case) for case in zip(judged, EVERY, tokens, strict=True)) < TIE
