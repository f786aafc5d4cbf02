"""R6, R13: a server loses no request when it is asked to end, and nothing of it is left when something is killed.

Each test fails with the switch that it names: `vllm serve` as published (no `ascend_plugin.service`) fails them all.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from .results import record
from .server import START_LIMIT_S, Running, lives, segments, send, started, wait_until_gone

LIMIT_S = 60  # for what must happen at all; nothing here depends on how soon


def all_processes(server: Running) -> list[psutil.Process]:
    return [psutil.Process(server.process.pid), *server.descendants()]


def begin(server: Running, count: int, tokens: int) -> list:
    streams = [server.stream(tokens, prompt=f"Stream {index}") for index in range(count)]
    for stream in streams:
        assert stream.first.wait(LIMIT_S), "a stream did not begin"
    return streams


@pytest.mark.breaks("service.set_server_defaults: leave the middleware out")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_requests_are_finished_before_the_server_ends(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    with started(tiny, log=tmp_path / "log") as server:
        processes = all_processes(server)
        streams = begin(server, 6, 150)
        send(server, number)
        refused = _refusal(server)
        finished = [stream.join(LIMIT_S) for stream in streams]
        assert server.process.wait(LIMIT_S) == 0
        assert [stream.is_success for stream in finished] == [True] * 6, [vars(stream) for stream in finished]
        assert "is ending" in refused
        assert wait_until_gone(processes, LIMIT_S) == []
    record("R13", "streams finished after a signal", 6)


def _refusal(server: Running) -> str:
    """What a request is told that comes after the signal."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            answer = server.post("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1})
        except httpx.TransportError as error:
            raise AssertionError("the server went before its requests were finished") from error
        if answer.status_code == 503:
            assert httpx.get(f"{server.url}/health").status_code == 503
            return answer.text
    raise AssertionError("requests were taken after the signal")


@pytest.mark.breaks("lifetime._close: leave out exchange.cut")
def test_what_the_bound_cuts_off_is_told(tiny: Path, tmp_path: Path) -> None:
    with started(tiny, "--shutdown-timeout", "2", log=tmp_path / "log") as server:
        processes = all_processes(server)
        streams = begin(server, 4, 30000)
        send(server, signal.SIGTERM)
        ended = [stream.join(LIMIT_S) for stream in streams]
        assert server.process.wait(LIMIT_S) == 0
        assert [stream.is_success for stream in ended] == [False] * 4
        assert all("send the request again" in stream.error and not stream.done for stream in ended), ended[0].error
        assert wait_until_gone(processes, LIMIT_S) == []
    record("R13", "streams cut at the bound and told", 4)


@pytest.mark.breaks("lifetime._on_signal: ignore a second signal")
def test_a_second_signal_waits_for_nothing(tiny: Path, tmp_path: Path) -> None:
    with started(tiny, "--shutdown-timeout", "600", log=tmp_path / "log") as server:
        processes = all_processes(server)
        streams = begin(server, 4, 30000)
        send(server, signal.SIGINT)
        time.sleep(1)
        assert server.process.poll() is None
        send(server, signal.SIGINT)
        assert server.process.wait(LIMIT_S) in (0, 130)
        assert all("send the request again" in stream.join(LIMIT_S).error for stream in streams)
        assert wait_until_gone(processes, LIMIT_S) == []
    record("R13", "streams cut by a second signal and told", 4)


@pytest.mark.breaks("lifetime._check_engine: return")
@pytest.mark.parametrize(
    ("ranks", "victim"),
    [(1, "EngineCore"), (2, "Worker"), pytest.param(2, "EngineCore", marks=pytest.mark.slow)],
)
def test_a_killed_engine_or_rank_ends_the_server_with_an_error(
    tiny: Path, tmp_path: Path, ranks: int, victim: str
) -> None:
    before = segments()
    with started(tiny, "--tensor-parallel-size", str(ranks), log=tmp_path / "log") as server:
        processes = all_processes(server)
        streams = begin(server, 4, 30000)
        server.descendants(victim)[-1].kill()
        deadline = time.monotonic() + LIMIT_S
        while server.health() == 200:
            assert time.monotonic() < deadline, "/health went on answering 200"
        code = server.process.wait(LIMIT_S)
        ended = [stream.join(LIMIT_S) for stream in streams]
        assert code == 1
        assert [stream.is_success for stream in ended] == [False] * 4
        assert all(stream.error or stream.broken for stream in ended)
        assert wait_until_gone(processes, LIMIT_S) == []
        assert "exit code 1 for its supervisor" in server.log.read_text(errors="replace")
    assert segments() <= before
    record("R6", "processes killed under load", 1)


@pytest.mark.breaks("orphans.prepare: return")
@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_server_leaves_no_engine(tiny: Path, tmp_path: Path, ranks: int) -> None:
    before = segments()
    with started(tiny, "--tensor-parallel-size", str(ranks), log=tmp_path / "log") as server:
        processes = server.descendants()
        assert len(processes) >= ranks
        begin(server, 4, 30000)
        os.kill(server.process.pid, signal.SIGKILL)
        assert wait_until_gone(processes, LIMIT_S) == []
    assert segments() <= before
    record("R6", "processes killed under load", 1)


def end_while_it_starts(tiny: Path, log: Path, moment: float, number: signal.Signals) -> None:
    """Send the signal, and see the server and all that it has started go.

    `moment`: seconds after the engine's process was seen; below 0, before that, after as many seconds.
    """
    with started(tiny, log=log, wait=False) as server:
        deadline = time.monotonic() + START_LIMIT_S
        while moment >= 0 and not server.descendants("EngineCore"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(abs(moment))
        processes = [*server.descendants(), psutil.Process(server.process.pid)]
        send(server, number)
        server.process.wait(LIMIT_S)
        assert [one for one in wait_until_gone(processes, LIMIT_S) if lives(one)] == []
    record("R6", "starts interrupted", 1)


# Before the engine, as it is forked, as it reads the weights, as it captures graphs, and about when it is ready.
MOMENTS_S = [-1, 0, 2, 4, 6]


@pytest.mark.slow
@pytest.mark.breaks("orphans.prepare: return")
@pytest.mark.parametrize("moment_s", MOMENTS_S)
def test_a_server_killed_while_it_starts_leaves_nothing(tiny: Path, tmp_path: Path, moment_s: float) -> None:
    end_while_it_starts(tiny, tmp_path / "log", moment_s, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.breaks("interrupted_start.prepare: return")
@pytest.mark.parametrize("moment_s", MOMENTS_S)
def test_a_signal_while_it_starts_is_heeded(tiny: Path, tmp_path: Path, moment_s: float) -> None:
    """vLLM's handler raises an exception, which can be lost between the engine's start and the server's."""
    end_while_it_starts(tiny, tmp_path / "log", moment_s, signal.SIGTERM)
