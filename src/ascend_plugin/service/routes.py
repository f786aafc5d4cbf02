"""The routes that a server answers: what clients of models need. vLLM has 60, and asks for its key on `/v1` only.

The rest is for operators of a cluster (pause, sleep, scale, weights), for debugging, or the same inference again under
a path without a key (`/invocations`, `/generative_scoring`). It is not there unless ASCEND_SERVE_ROUTES names it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re

VARIABLE = "ASCEND_SERVE_ROUTES"
WITHOUT_KEY = ("/health", "/ping", "/metrics")  # what a balancer and a scraper ask, which have none
SERVED = {
    "GET": (
        "/health",
        "/ping",
        "/metrics",
        "/version",
        "/load",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/responses/{name}",
    ),
    "POST": (
        "/v1/completions",
        "/v1/completions/render",
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/chat/completions/render",
        "/v1/responses",
        "/v1/responses/{name}/cancel",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v2/embed",
        "/v1/score",
        "/v1/rerank",
        "/v2/rerank",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/score",
        "/rerank",
        "/pooling",
        "/classify",
        "/tokenize",
        "/detokenize",
    ),
}


class Routes:
    """The allow list, by method and path."""

    def __init__(self, more: str | None = None) -> None:
        """more: paths beyond the list, between commas; `all` for every route of vLLM. Raises ValueError."""
        text = os.environ.get(VARIABLE, "") if more is None else more
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for entry in entries:
            if entry != "all" and not entry.startswith("/"):
                raise ValueError(f"{VARIABLE} has {entry!r}: write paths such as /pause between commas, or all")
        self._all = "all" in entries
        self._more = {entry for entry in entries if entry != "all"}
        self._patterns = {
            method: re.compile("|".join(re.escape(path).replace(r"\{name\}", "[^/]+") for path in paths))
            for method, paths in SERVED.items()
        }

    def has(self, method: str, path: str) -> bool:
        if self._all or path in self._more:
            return True
        if method in ("HEAD", "OPTIONS"):
            return any(pattern.fullmatch(path) for pattern in self._patterns.values())
        pattern = self._patterns.get(method)
        return pattern is not None and pattern.fullmatch(path) is not None

    def names(self, path: str) -> bool:
        """Whether the path is there under another method, which vLLM answers with 405."""
        return any(pattern.fullmatch(path) for pattern in self._patterns.values())


class Keys:
    """The server's keys, kept as digests and compared in constant time."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys if key]

    def admit(self, path: str, authorization: bytes) -> bool:
        if not self._digests or path in WITHOUT_KEY:
            return True
        scheme, _, given = authorization.partition(b" ")
        shown = _digest(given)
        matches = False
        for digest in self._digests:
            matches |= hmac.compare_digest(digest, shown)
        return matches and scheme.lower() == b"bearer"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
