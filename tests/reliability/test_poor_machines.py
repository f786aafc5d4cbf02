"""R16, R7: full disks, read-only roots, few descriptors, little shared memory, a taken port, a rank that sleeps.

Each start either serves, or ends at once with a sentence; nothing hangs and nothing is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.server import free_port

from .results import record
from .server import ASCEND, segments, started, wait_until_gone

LIMIT_S = 90
pytestmark = pytest.mark.slow
can_mount = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root may lay a machine out in a mount namespace"
)


def served_in(
    tiny: Path, log: Path, layout: str, *, under: str = "", output: str = "", ready: str = "", requests: int = 1
) -> str:
    """Start a server in mount (and network) namespaces that a line of shell lays out, ask it, end it.

    output: the file that it writes to. ready: another line of shell, for when it serves. Returns what was printed.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ask = (
        f"import httpx; [print(httpx.post('{url}/v1/completions', timeout=60, json={{'model': 'tiny', 'prompt': 'x', "
        "'max_tokens': 2, 'structured_outputs': {'choice': ['a', 'b']} if number % 2 else None}).status_code) "
        f"for number in range({requests})]"
    )
    written = f"> {output} 2>&1" if output else ""
    script = f"""
        set -e
        {layout}
        {under} {ASCEND} serve {tiny} -- --port {port} --served-model-name tiny {written} &
        server=$!
        for _ in $(seq 1500); do
          {{ exec 3<> /dev/tcp/127.0.0.1/{port} && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3; }} \\
            2> /dev/null | grep -q ' 200' && break
          kill -0 $server 2> /dev/null || break
          sleep 0.5
        done
        {ready}
        {sys.executable} -c "{ask}" || true
        kill -TERM $server 2> /dev/null || true
        wait $server && echo ENDED 0 || echo ENDED $?
    """
    command = ["unshare", "--mount", "--net", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    log.write_text(done.stdout + done.stderr)
    assert done.stdout.splitlines().count("200") == requests, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@can_mount
@pytest.mark.breaks("bootstrap.main: its folder beside the package")
def test_a_read_only_root_and_no_network(tiny: Path, tmp_path: Path) -> None:
    """As in a container with --read-only, --network none, --cap-drop ALL and no-new-privileges: /tmp can be written."""
    layout = """
        ip link set lo up
        mount --make-rprivate /
        mount -t tmpfs tmpfs /mnt
        cp -r MODEL /mnt/model
        mount -o remount,ro,bind / 2> /dev/null || mount --bind -o ro / /
        mount -t tmpfs tmpfs /tmp
        export HOME=/nonexistent XDG_CACHE_HOME=/tmp/cache XDG_RUNTIME_DIR= HF_HUB_OFFLINE=1
    """.replace("MODEL", str(tiny))
    confined = "setpriv --bounding-set -all --inh-caps -all --no-new-privs"
    served_in(Path("/mnt/model"), tmp_path / "log", layout, under=confined)
    record("R16", "layouts of poor machines", 1)


@can_mount
@pytest.mark.breaks("worker.init_device: take 8 MiB of shared memory")
@pytest.mark.parametrize("size", ["1m", "64m"])
def test_little_shared_memory(tiny: Path, tmp_path: Path, size: str) -> None:
    """Docker's default is 64 MiB. With less than an engine needs it must say so, not hang."""
    layout = (
        f"ip link set lo up; mount -t tmpfs -o size={size} tmpfs /dev/shm; export ASCEND_EMULATOR_STATE_DIR=/tmp/state"
    )
    served_in(tiny, tmp_path / "log", layout)
    record("R16", "layouts of poor machines", 1)


@can_mount
@pytest.mark.breaks("records.remember: let OSError pass")
def test_a_full_disk(tiny: Path, tmp_path: Path) -> None:
    layout = """
        ip link set lo up
        mkdir -p /tmp/full-KEY; mount -t tmpfs -o size=64k tmpfs /tmp/full-KEY
        dd if=/dev/zero of=/tmp/full-KEY/filler bs=1k count=64 2> /dev/null || true
        export XDG_CACHE_HOME=/tmp/full-KEY XDG_RUNTIME_DIR=/tmp/full-KEY VLLM_CACHE_ROOT=/tmp/full-KEY
    """.replace("KEY", str(os.getpid()))
    served_in(tiny, tmp_path / "log", layout)
    record("R16", "layouts of poor machines", 1)


@can_mount
@pytest.mark.breaks("lifetime._serve: note every request in a file")
def test_a_disk_that_fills_while_it_serves(tiny: Path, tmp_path: Path) -> None:
    """Its log, its temporary files and its caches are on it: requests are answered, and it ends as it does else."""
    place = f"/tmp/filling-{os.getpid()}"
    layout = f"""
        ip link set lo up
        mkdir -p {place}; mount -t tmpfs -o size=64m tmpfs {place}
        export XDG_CACHE_HOME={place} XDG_RUNTIME_DIR={place} VLLM_CACHE_ROOT={place} TMPDIR={place}
    """
    fill = f"""
        dd if=/dev/zero of={place}/filler bs=64k 2> /dev/null || true
        echo more 2> /dev/null >> {place}/filler && echo NOT FULL
    """
    told = served_in(tiny, tmp_path / "log", layout, output=f"{place}/log", ready=fill, requests=60)
    assert "NOT FULL" not in told and "ENDED 0" in told, told
    record("R16", "layouts of poor machines", 1)


@pytest.mark.breaks("lifetime._serve: leave a descriptor open")
def test_few_descriptors(tiny: Path, tmp_path: Path) -> None:
    """256 descriptors: the server serves, and more clients than it has descriptors do not end it."""
    wrapper = tmp_path / "ascend"
    wrapper.write_text(f'#!/bin/bash\nulimit -n 256\nexec {ASCEND} "$@"\n')
    wrapper.chmod(0o755)
    import socket

    from . import server as module

    original, module.ASCEND = module.ASCEND, str(wrapper)
    try:
        with started(tiny, log=tmp_path / "log") as server:
            before = server.complete()
            held = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(400)]
            time.sleep(2)
            for connection in held:
                connection.close()
            deadline = time.monotonic() + LIMIT_S
            while server.health() != 200:
                assert time.monotonic() < deadline and server.process.poll() is None
                time.sleep(0.2)
            for _ in range(300):  # more than it has, one after another: none is kept
                assert server.health() == 200
            assert server.complete() == before
    finally:
        module.ASCEND = original
    record("R16", "layouts of poor machines", 1)


@pytest.mark.breaks("net.port_is_taken: return False")
def test_two_servers_on_one_port_and_chip(tiny: Path, tmp_path: Path) -> None:
    with started(tiny, log=tmp_path / "log", environment={"ASCEND_RT_VISIBLE_DEVICES": "0"}) as server:
        before = server.complete()
        command = [ASCEND, "serve", str(tiny), "--", "--port", str(server.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert second.returncode == 2 and f"port {server.port} is taken" in second.stderr
        assert server.complete() == before
    record("R16", "layouts of poor machines", 1)


@pytest.mark.breaks("lifetime._on_signal: no bound on a second signal")
def test_a_rank_that_sleeps_can_be_ended(tiny: Path, tmp_path: Path) -> None:
    """`kill -STOP` of a rank: requests wait, and two signals still end everything."""
    before = segments()
    with started(tiny, "--tensor-parallel-size", "2", log=tmp_path / "log") as server:
        processes = server.descendants()
        stream = server.stream(30000)
        assert stream.first.wait(LIMIT_S)
        rank = server.descendants("Worker")[-1]
        rank.send_signal(signal.SIGSTOP)
        time.sleep(2)
        for _ in range(2):
            os.kill(server.process.pid, signal.SIGTERM)
            time.sleep(1)
        assert server.process.wait(LIMIT_S) in (0, 143)
        assert stream.join(LIMIT_S).error
        assert wait_until_gone(processes, LIMIT_S) == []
    assert segments() <= before
    record("R7", "ranks stopped", 1)
