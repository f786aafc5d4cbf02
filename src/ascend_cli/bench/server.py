"""The server under test: its model and tokenizer, the tokens it really processed, what it runs on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ascend_cli.errors import AscendError, UsageError

TIMEOUT_S = 10.0
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})?\s+(?P<value>\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """A running server and the model it serves."""

    url: str
    model: str  # as served
    root: str  # the folder or hub id it was started with: the tokenizer's home
    api_key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def environment(self) -> dict[str, str]:
        """For `vllm bench`, which takes a key from OPENAI_API_KEY only."""
        return dict(os.environ) | ({"OPENAI_API_KEY": self.api_key} if self.api_key else {})


def find_target(url: str, model: str = "", tokenizer: str = "", api_key: str | None = None) -> Target:
    """Ask a server for its model. Raises AscendError if it does not answer, UsageError if the model is not served.

    The served name need not be the name of a hub repository, and a tokenizer looked up by it is an error; `/v1/models`
    tells where the model came from.
    """
    import httpx

    url = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise UsageError(
            f"no server answers at {url} ({error}): start one with `ascend serve MODEL`, or give --url"
        ) from error
    if answer.status_code == 401:
        raise UsageError(f"{url} wants an API key: give --api-key-file")
    if answer.status_code != 200:
        raise AscendError(f"{url}/v1/models answered {answer.status_code}: is it a vLLM server?")
    served = {entry["id"]: entry.get("root") or entry["id"] for entry in answer.json()["data"]}
    name = model or next(iter(served), "")
    if name not in served:
        raise UsageError(f"{url} does not serve {model!r}: it serves {', '.join(served) or 'nothing'}")
    root = tokenizer or served[name]
    if root.startswith("/") and not Path(root).is_dir():
        raise UsageError(f"the server's tokenizer is at {root}, which is not on this machine: give --tokenizer")
    return Target(url, name, root, api_key)


def metrics(target: Target) -> dict[str, float]:
    """Prometheus samples of /metrics, summed over their labels; empty where the server shows none."""
    import httpx

    try:
        answer = httpx.get(f"{target.url}/metrics", headers=target.headers, timeout=TIMEOUT_S)
    except httpx.HTTPError:
        return {}
    return parse_metrics(answer.text) if answer.status_code == 200 else {}


def parse_metrics(text: str) -> dict[str, float]:
    totals: dict[str, float] = {}
    for found in SAMPLE.finditer(text):
        try:
            value = float(found["value"])
        except ValueError:
            continue
        totals[found["name"]] = totals.get(found["name"], 0.0) + value
    return totals


def processed_tokens(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[int, int] | None:
    """Prompt and generated tokens between two samples of the server's own counters; None if it has none."""
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    if any(name not in after for name in names):
        return None
    prompt, generated = (after[name] - before.get(name, 0.0) for name in names)
    return round(prompt), round(generated)
