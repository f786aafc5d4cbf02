"""Middleware in front of vLLM's routes: only those that are served, only with the key, and within the bounds.

`ascend serve` adds it (`--middleware ascend_plugin.service.limits.Limits`); for `vllm serve` it can be given by hand.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ascend_plugin.service.bounds import Bounds, Refused, check, check_header, check_size, parse, structures
from ascend_plugin.service.exchanges import refuse, with_short_errors
from ascend_plugin.service.grammars import GrammarCheck
from ascend_plugin.service.routes import Keys, Routes

UNLIMITED_BODIES = ("/v1/audio/",)  # uploads: counted while they pass, not kept
TEXTS = ("/tokenize", "/detokenize")  # as long as a body is: one thread makes tokens of everybody's texts
REQUEST_ID = b"x-request-id"


class Limits:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bounds = Bounds.from_environment()
        self._routes = Routes()
        self._keys: Keys | None = None
        self._grammars: GrammarCheck | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                receive = await self._admit(scope, receive)
                send = with_short_errors(send)
            elif scope["type"] == "websocket":
                self._admit_to_route("WEBSOCKET", scope)
        except Refused as refusal:
            await refuse(send, refusal.status, str(refusal), {"Connection": "close"}, kind=scope["type"])
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """What the application is to receive. Raises Refused."""
        method = scope["method"]
        headers, path = self._admit_to_route(method, scope)
        check_header("X-Request-Id", headers.get(REQUEST_ID, b""), self._bounds)
        if method != "POST":
            return receive
        limit_kib = self._bounds.tokenize_kib if path in TEXTS else self._bounds.body_mib << 10
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit_kib << 10:
            raise _too_large(limit_kib)
        if path.startswith(UNLIMITED_BODIES):
            return self._counted(receive)
        body = await self._read(receive, limit_kib)
        if b"json" in headers.get(b"content-type", b"").lower():
            await self._check_json(scope, body)
        return _replay(body, receive)

    def _admit_to_route(self, method: str, scope: Scope) -> tuple[dict[bytes, bytes], str]:
        """The headers by name, and the path. Raises Refused for a route that is not served and for a wrong key."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not self._routes.has(method, path):
            if self._routes.names(path):
                raise Refused(f"Use another method for {path}: {method} is not served.", 405)
            raise Refused(
                f"{path} is not served here: ASCEND_SERVE_ROUTES={path} in the server's environment adds it.", 404
            )
        headers = {name.lower(): value for name, value in scope["headers"]}
        if method != "OPTIONS" and not self._known_keys(scope).admit(path, headers.get(b"authorization", b"")):
            raise Refused("Send the server's key: `Authorization: Bearer KEY`.", 401)
        return headers, path

    def _known_keys(self, scope: Scope) -> Keys:
        if self._keys is None:
            given = scope["app"].state.args.api_key
            self._keys = Keys(given or [os.environ.get("VLLM_API_KEY", "")])
        return self._keys

    # ------------------------------------------------------------------ bodies

    async def _read(self, receive: Receive, limit_kib: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), self._bounds.body_s)
            except TimeoutError as error:
                raise Refused(f"Send the body faster: nothing came for {self._bounds.body_s} s.", 408) from error
            if message["type"] == "http.disconnect":
                raise Refused("The client went away.", 408)
            part = message.get("body", b"")
            size += len(part)
            if size > limit_kib << 10:
                raise _too_large(limit_kib)
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return {"type": "http.disconnect"} if size > self._bounds.body_mib << 20 else message

        return counted

    async def _check_json(self, scope: Scope, body: bytes) -> None:
        parsed = parse(body, self._bounds)
        if not isinstance(parsed, dict):
            return  # vLLM refuses it
        check_size(parsed, len(body), self._bounds)
        check(parsed, self._bounds)
        wanted = list(structures(parsed))
        if not wanted:
            return
        if self._grammars is None:
            self._grammars = GrammarCheck(_tokenizer(scope["app"].state), self._bounds.compile_s)
        await self._grammars.check(wanted)


def _too_large(limit_kib: int) -> Refused:
    limit = f"{limit_kib >> 10} MiB" if limit_kib % 1024 == 0 else f"{limit_kib} KiB"
    return Refused(f"Send less in one request: bodies of {limit} are taken.", 413)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, then whatever else the connection says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _tokenizer(state: Any) -> str:
    config = state.engine_client.model_config
    return str(config.tokenizer or config.model)
