"""How a server ends: requests first, then the front end, then the engine; and not with success when the engine failed.

vLLM stops its engine first. Streams that wait for it then wait for ever, and the server with them, because nothing
ends them; and a server whose engine was killed exits with 0, so that no supervisor starts it again
(docs/upstream/shutdown.md). Here a signal lets requests finish for `--shutdown-timeout` seconds while new ones are
refused, ends what is left with an error that clients can tell from success, and closes the server. A second signal
waits for nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ascend_plugin.log import plugin_logger
from ascend_plugin.service import ending, shared_memory
from ascend_plugin.service.exchanges import Exchange, refuse

logger = plugin_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOOK_EVERY_S = 0.1
FLUSH_S = 2.0  # for answers that are complete, or cut, to reach their clients
CLOSE_S = 3  # for connections whose clients do not read
HURRY_S = 5.0  # after a second signal
STILL_ANSWERED = ("/metrics",)
ENDING = "The server is ending: send the request again, to another one or in a moment."
CUT = "The server ended before this answer was complete: send the request again."
LOST = "The engine failed before this answer was complete: send the request again in a moment."


class EngineFailed(Exception):
    """The engine or one of its ranks ended by itself; the log above says why."""


class Lifetime:
    """ASGI middleware, the outermost: knows every open request, takes the signals, and watches the engine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[Exchange] = set()
        self._signals = 0
        self._failed = False
        self._segments: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._after_startup(scope["app"], send))
        elif self._signals and scope["path"] not in STILL_ANSWERED:
            await refuse(send, 503, ENDING, {"Retry-After": "5", "Connection": "close"}, kind=scope["type"])
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope["path"], send)
        self._open.add(exchange)
        try:
            await exchange.run(self._app, scope, receive)
        finally:
            self._open.discard(exchange)

    # ------------------------------------------------------------------ start

    def _after_startup(self, app: Any, send: Send) -> Send:
        async def started(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._start(app.state)
            await send(message)

        return started

    def _start(self, state: Any) -> None:
        """vLLM has set its own handlers by now; these take their place."""
        server = getattr(state, "server", None)
        if server is None:
            return  # the app runs under another server than vLLM's
        self._segments = shared_memory.mapped_by(process.pid for process in ending.descendants())
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                loop.add_signal_handler(number, self._on_signal, number, state)
        close = server.shutdown

        async def close_and_tell(*arguments: Any, **named: Any) -> None:
            await close(*arguments, **named)
            self._check_engine()

        server.shutdown = close_and_tell
        self._spawn(self._watch(state))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ the engine

    async def _watch(self, state: Any) -> None:
        """End with the engine, at once: until then clients would be told that a dead server is there."""
        engine, server = state.engine_client, state.server
        while not self._signals and not server.should_exit:
            if engine is not None and engine.errored:
                self._failed = True
                break
            await asyncio.sleep(LOOK_EVERY_S)
        if not self._signals:
            await self._flush()  # vLLM tells its streams; those that it forgets are cut
            self._close(server, LOST if self._failed else CUT)

    def _check_engine(self) -> None:
        """Raises EngineFailed, which makes the exit code 1."""
        if self._failed:
            shared_memory.unlink(self._segments)
            sys.excepthook = _in_one_line
            raise EngineFailed(
                "The engine ended by itself, so the server ends with exit code 1 for its supervisor to start it again: "
                "the lines above say why."
            )

    # ------------------------------------------------------------------ signals

    def _on_signal(self, number: int, state: Any) -> None:
        self._signals += 1
        name = signal.Signals(number).name
        if self._signals == 1:
            limit_s = float(getattr(state.args, "shutdown_timeout", 0) or 0)
            logger.info(
                "%s: %d requests have %g s to finish; another signal ends them now.", name, len(self._open), limit_s
            )
            self._spawn(self._drain(state.server, limit_s))
        elif self._signals == 2:
            logger.warning("%s again: ending %d requests now.", name, len(self._open))
            arguments = (number, HURRY_S, self._segments)
            threading.Thread(target=ending.end_for_certain, args=arguments, daemon=True).start()

    async def _drain(self, server: Any, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while self._open and time.monotonic() < deadline and self._signals == 1:
            await asyncio.sleep(LOOK_EVERY_S)
        if self._open:
            logger.warning("%d requests were not finished: their clients are told.", len(self._open))
        self._close(server, CUT)

    async def _flush(self) -> None:
        deadline = time.monotonic() + FLUSH_S
        while self._open and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_EVERY_S)

    def _close(self, server: Any, reason: str) -> None:
        for exchange in list(self._open):
            exchange.cut(reason)
        server.config.timeout_graceful_shutdown = CLOSE_S
        server.should_exit = True


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, EngineFailed):
        print(error, file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)
