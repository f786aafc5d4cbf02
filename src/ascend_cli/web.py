"""Asking a server over HTTP: never through a proxy where it is on this machine, and every failure one line."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ascend_cli.errors import NothingDone, UsageError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0


class NoAnswer(UsageError):
    """Nothing answers at the address, or the address is none."""


def base_url(url: str) -> str:
    """An address as this command uses it: with a scheme, without /v1 at its end. Raises UsageError.

    One with a user, a password or a query in it is refused, unprinted: addresses go into results, logs and errors.
    """
    text = url.strip() if "//" in url else f"http://{url.strip()}"
    scheme, _, rest = text.partition("//")
    text = f"{scheme}//{rest.rstrip('/').removesuffix('/v1').rstrip('/')}"
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if "@" in text or "?" in text or "#" in text:
        raise UsageError(
            "an address of a server is http://HOST:PORT, without a user, a password or a query, which results and logs "
            "would show: give the key by --api-key-file"
        )
    if not is_good or not text.isprintable() or " " in text:
        raise UsageError(f"{url!r} is not the address of a server: write http://HOST:PORT")
    return text


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def get(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> httpx.Response:
    """One request. Raises NoAnswer, with the reason in it."""
    import httpx

    try:
        with httpx.Client(trust_env=not is_loopback(url), timeout=timeout_s) as client:
            return client.get(url, headers=dict(headers or {}))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    except ImportError as error:  # a SOCKS proxy in the environment, without the package for it
        raise NoAnswer("the proxy of this environment needs a package that is not here: unset all_proxy") from error


def json_of(response: httpx.Response, url: str) -> Any:
    """The JSON of an answer. Raises NothingDone if it is something else."""
    try:
        return response.json()
    except ValueError as error:
        raise NothingDone(f"{url} answered something that is not JSON: is it a vLLM server?") from error


def without_proxy(environment: Mapping[str, str], url: str) -> dict[str, str]:
    """An environment for a child that asks a server on this machine, whatever proxies are set."""
    if not is_loopback(url):
        return dict(environment)
    host = urlsplit(url).hostname or ""
    found = dict(environment)
    for name in ("no_proxy", "NO_PROXY"):
        found[name] = ",".join(filter(None, (found.get(name, ""), host)))
    return found
