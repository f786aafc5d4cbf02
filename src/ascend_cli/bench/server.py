"""The server under test: its model and tokenizer, the tokens it really processed, what it runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ascend_cli import web
from ascend_cli.bench.metrics import Metrics
from ascend_cli.errors import NothingDone, UsageError

TOKEN_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


@dataclass(frozen=True)
class Target:
    """A running server and the model it serves."""

    url: str
    model: str  # as served
    root: str  # the folder or hub id it was started with: the tokenizer's home
    api_key: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def environment(self) -> dict[str, str]:
        """For `vllm bench`, which takes a key from OPENAI_API_KEY only."""
        key = {"OPENAI_API_KEY": self.api_key} if self.api_key else {}
        return web.without_proxy(dict(os.environ) | key, self.url)


def find_target(url: str, model: str = "", tokenizer: str = "", api_key: str | None = None) -> Target:
    """Ask a server for its model. Raises NothingDone if it does not answer, UsageError if the model is not served.

    The served name need not be the name of a hub repository, and a tokenizer looked up by it is an error; `/v1/models`
    tells where the model came from.
    """
    url = web.base_url(url)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = web.get(f"{url}/v1/models", headers)
    except web.NoAnswer as error:
        raise UsageError(
            f"no server answers at {url} ({error}): start one with `ascend serve MODEL`, or give --url"
        ) from error
    if answer.status_code == 401:
        raise UsageError(f"{url} wants {'another' if api_key else 'an'} API key: give --api-key-file")
    if answer.status_code != 200:
        raise NothingDone(f"{url}/v1/models answered {answer.status_code}: is it a vLLM server?")
    served = _served(web.json_of(answer, f"{url}/v1/models"), url)
    name = model or next(iter(served), "")
    if name not in served:
        raise UsageError(f"{url} does not serve {model!r}: it serves {', '.join(served) or 'nothing'}")
    root = tokenizer or served[name]
    if root.startswith("/") and not Path(root).is_dir():
        raise UsageError(f"the server's tokenizer is at {root}, which is not on this machine: give --tokenizer")
    return Target(url, name, root, api_key)


def _served(document: object, url: str) -> dict[str, str]:
    """Names of the models that a server lists, with where each came from. Raises NothingDone for another answer."""
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
    ):
        raise NothingDone(f"{url}/v1/models lists no models: is it a vLLM server?")
    return {entry["id"]: str(entry.get("root") or entry["id"]) for entry in entries}


def metrics(target: Target) -> Metrics | None:
    """Prometheus samples of /metrics; None where the server shows none."""
    try:
        answer = web.get(f"{target.url}/metrics", target.headers)
        return Metrics.parse(answer.text) if answer.status_code == 200 else None
    except (web.NoAnswer, ValueError):
        return None


def processed_tokens(before: Metrics | None, after: Metrics | None) -> tuple[int, int] | None:
    """Prompt and generated tokens between two samples of the server's own counters; None if they do not tell."""
    if before is None or after is None or not after.has(TOKEN_COUNTERS):
        return None
    prompt, generated = (after.total(name) - before.total(name) for name in TOKEN_COUNTERS)
    return (round(prompt), round(generated)) if prompt >= 0 and generated >= 0 else None  # restarted in between
