"""One request and its answer, which can be ended early in a way that its client can tell from success."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMED_EVENTS = ("/v1/messages", "/v1/responses")  # their clients look at an event's name


class Exchange:
    """Passes messages on until it is cut; then ends the answer with an error, or leaves it visibly incomplete."""

    def __init__(self, path: str, send: Send) -> None:
        self._path = path
        self._send = send
        self._task = asyncio.current_task()
        self._headers: dict[bytes, bytes] | None = None
        self._finished = False
        self._reason = ""

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        try:
            await app(scope, receive, self._pass_on)
        except asyncio.CancelledError:
            if not self._reason or self._task is None:
                raise
            self._task.uncancel()
        if self._reason:
            await self._end()

    def cut(self, reason: str) -> None:
        """End it now; a client that reads slowly is not waited for."""
        if not self._reason and self._task is not None:
            self._reason = reason
            self._task.cancel()

    async def _pass_on(self, message: Message) -> None:
        if self._reason:
            return  # what the application says while it is being cancelled is not its answer
        if message["type"] == "http.response.start":
            self._headers = {name.lower(): value for name, value in message.get("headers", [])}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._finished = True

    async def _end(self) -> None:
        if self._finished:
            return
        if self._headers is None:
            await refuse(self._send, 503, self._reason, {"Retry-After": "5"})
        elif self._headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            name = b"event: error\n" if self._path.startswith(NAMED_EVENTS) else b""
            event = name + b"data: " + json.dumps(error(503, self._reason)).encode() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})


def error(status: int, message: str) -> dict[str, Any]:
    """An error in OpenAI's form, as vLLM answers it."""
    kinds = {401: "Unauthorized", 404: "NotFoundError", 413: "RequestEntityTooLarge", 503: "ServiceUnavailableError"}
    return {"error": {"message": message, "type": kinds.get(status, "BadRequestError"), "param": None, "code": status}}


LONGEST = 1000  # characters of an error that tells what to do; vLLM's repeat what they were sent


def with_short_errors(send: Send) -> Send:
    """Sends errors in OpenAI's and Anthropic's form with at most LONGEST characters of their message."""
    held: list[Message] = []

    async def shortened(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", [])}
            is_error = message["status"] >= 400 and headers.get(b"content-type", b"").startswith(b"application/json")
            if is_error:
                held.append(message)
                return
        elif held:
            held.append(message)
            if message.get("more_body", False):
                return
            start, *parts = held
            held.clear()
            body = _short(b"".join(part.get("body", b"") for part in parts))
            others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*others, (b"content-length", str(len(body)).encode())]})
            message = {"type": "http.response.body", "body": body}
        await send(message)

    return shortened


def _short(body: bytes) -> bytes:
    try:
        document = json.loads(body)
        message = document["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return body
    if not isinstance(message, str) or len(message) <= LONGEST:
        return body
    document["error"]["message"] = f"{message[:LONGEST]}... ({len(message)} characters in all)"
    return json.dumps(document).encode()


async def refuse(
    send: Send, status: int, message: str, headers: dict[str, str] | None = None, kind: str = "http"
) -> None:
    """kind: the scope's; a WebSocket that is closed before it is accepted is answered with 403, without a body."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1013 if status == 503 else 1008, "reason": message[:120]})
        return
    body = json.dumps(error(status, message)).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
