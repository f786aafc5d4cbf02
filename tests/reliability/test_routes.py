"""R10: every route, without a key, with a wrong and the right one, against a golden table; a new route fails it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from .results import record
from .server import Running

GOLDEN = Path(__file__).with_name("routes.json")
KEYS = {"none": {}, "bad": {"Authorization": "Bearer another"}, "basic": {"Authorization": "Basic YTpi"}}


def routes_in(log: Path) -> list[tuple[str, str]]:
    """(method, path) of every route, as vLLM lists them when it starts."""
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        if "Route: " in line and "Methods: " in line:
            path, methods = line.split("Route: ")[1].split(", Methods: ")
            found |= {(method.strip(), path) for method in methods.split(",")}
    return sorted((path, method) for method, path in found)


def outcome(server: Running, method: str, path: str, headers: dict[str, str]) -> str:
    """served, refused (no key) or absent; a bad request is served: it came to the route."""
    filled = path.replace("{response_id}", "r").replace("{model_id:path}", "m").replace("{path:path}", "p")
    answer = httpx.request(
        method, f"{server.url}{filled}", headers=headers | {"Content-Type": "application/json"}, timeout=60
    )
    if answer.status_code == 401:
        return "refused"
    # The answer to HEAD has no body; no route of vLLM answers HEAD with 404 by itself.
    if answer.status_code == 404 and (method == "HEAD" or "is not served here" in answer.text):
        return "absent"
    if answer.status_code == 405 and "is not served" in answer.text:
        return "absent"
    assert answer.status_code < 500 or answer.status_code == 501, f"{method} {path}: {answer.text[:200]}"
    return "served"


@pytest.mark.slow
@pytest.mark.breaks("routes.Keys.admit: return True")
def test_every_route_and_key(served: Running) -> None:
    table = {}
    for path, method in routes_in(served.log):
        row = {name: outcome(served, method, path, headers) for name, headers in KEYS.items()}
        row["good"] = outcome(served, method, path, served.headers)
        table[f"{method} {path}"] = row
    assert len(table) >= 40
    golden = json.loads(GOLDEN.read_text())
    assert table == golden, f"review {GOLDEN.name}; this server's table is:\n{json.dumps(table, indent=1)}"
    record("R10", "routes", len(table))
    record("R10", "combinations of route and key", len(table) * 4)
    without = [name for name, row in table.items() if row["none"] == "served"]
    assert {name.split()[1] for name in without} == {"/health", "/ping", "/metrics"}


@pytest.mark.breaks("limits._admit_to_route: ask for the key where a path is spelled plainly")
def test_ways_around_the_list(served: Running) -> None:
    """Other spellings of a path reach nothing without the key."""
    for path in (
        "//v1/models",
        "/v1/../v1/models",
        "/V1/models",
        "/v1/models/",
        "/health/../v1/models",
        "/%76%31/models",
        "/%76ersion",  # has no second lock of vLLM's, which is on /v1 alone
        "//version",
        "/version/",
        "/health/../version",
    ):
        answer = httpx.Client().send(httpx.Request("GET", httpx.URL(served.url, raw_path=path.encode())))
        assert answer.status_code in (401, 404, 307), (path, answer.text)
        assert "tiny" not in answer.text


@pytest.mark.slow
@pytest.mark.breaks("flags.without_secrets: return flags, {}")
def test_the_key_is_in_no_command_line_or_log(served: Running) -> None:
    import psutil

    secret = served.headers["Authorization"].split()[1]
    processes = [psutil.Process(served.process.pid), *served.descendants()]
    assert all(secret not in " ".join(process.cmdline()) for process in processes)
    assert secret not in served.log.read_text(errors="replace")
