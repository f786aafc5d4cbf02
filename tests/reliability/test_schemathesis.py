"""R1: requests made from the server's own description, valid and invalid, at every route: no error of the server."""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from .results import record
from .scale import EVERYTHING, EXAMPLES
from .server import Running
from .test_routes import routes_in

schemathesis = pytest.importorskip("schemathesis")
SEED = 20261128
# What vLLM has on purpose: not for this model, or not started. Each answers 501, or 500 with a sentence that says so.
NOT_THIS_MODEL = 501
TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
LIMIT_S = 120
UNSENT = 0  # in place of a status


def made_short(body: object) -> object:
    """A valid request without a bound would fill the context; what is wrong in one stays as it was made."""
    if not isinstance(body, dict):
        return body
    return body | {name: 2 for name in TOKENS if name not in body or _is_large(body[name])}


def _content(arguments: dict) -> str | bytes | None:
    """The body: JSON as Python writes it, with NaN and lone surrogates as they come, which httpx would not send."""
    if "json" in arguments:
        return json.dumps(arguments["json"])
    data = arguments.get("data")
    return data if isinstance(data, str | bytes) else None


def _is_large(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 2)


@pytest.mark.breaks("limits._check_json: want a list of messages in every body")
def test_generated_requests(served: Running) -> None:
    from schemathesis import GenerationMode

    document = httpx.get(f"{served.url}/openapi.json", headers=served.headers, timeout=60).json()
    allowed = {path for path, _ in routes_in(served.log)}
    schema = schemathesis.openapi.from_dict(document)
    answers: Counter[int] = Counter()
    routes: set[str] = set()
    failed: list[str] = []
    canary = served.complete("Once")
    with httpx.Client(timeout=LIMIT_S, headers=served.headers) as client:
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in (GenerationMode.NEGATIVE, GenerationMode.POSITIVE)[: 2 if EVERYTHING else 1]:
                routes.add(f"{operation.method.upper()} {operation.path}")
                failed += _try(operation, mode, client, served.url, answers)
    assert failed == []
    assert served.complete("Once") == canary
    assert len(routes) > 20 and allowed
    record("R1", "routes", len(routes))
    record("R1", "requests", sum(answers.values()) - answers.pop(UNSENT, 0))
    for status, number in answers.items():
        record("R1", f"answered {status // 100}xx" if status != NOT_THIS_MODEL else "answered 501", number)


def _try(operation, mode, client: httpx.Client, url: str, answers: Counter[int]) -> list[str]:
    failed: list[str] = []

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case) -> None:
        case.body = made_short(case.body)
        arguments = case.as_transport_kwargs(base_url=url)
        headers = {name: value for name, value in arguments["headers"].items() if name.lower() != "authorization"}
        if "json" in arguments and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json"
        try:
            answer = client.request(
                arguments["method"],
                arguments["url"],
                content=_content(arguments),
                params=arguments.get("params"),
                headers={name: str(value).encode("utf-8", "replace") for name, value in headers.items()},
            )
        except (ValueError, UnicodeError, TypeError, httpx.LocalProtocolError):
            answers[UNSENT] += 1  # no client can send that
            return
        except httpx.TimeoutException:
            failed.append(f"no answer in {LIMIT_S} s: {arguments['method']} {arguments['url']}: {case.body!r:.500}")
            return
        answers[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code != NOT_THIS_MODEL:
            failed.append(f"{answer.status_code} {arguments['method']} {arguments['url']}: {answer.text[:300]}")

    try:
        ask()
    except Exception as error:  # a description from which nothing can be made
        if type(error).__name__ not in ("Unsatisfiable", "InvalidSchema"):
            raise
    return failed[:3]
