"""The middlewares in front of a server, on a small application: routes, keys, bounds, and answers that are cut."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_plugin import service
from ascend_plugin.service.bounds import Bounds, Refused, check, parse
from ascend_plugin.service.exchanges import Exchange, with_short_errors
from ascend_plugin.service.limits import Limits
from ascend_plugin.service.routes import SERVED, Keys, Routes

KEY = "k"


class Echo:
    """Answers 200 with what it received; `state` is as vLLM's app has it."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(args=SimpleNamespace(api_key=[KEY]))
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


def ask(method: str, path: str, **more: Any) -> tuple[httpx.Response, Echo]:
    echo = Echo()
    limits = Limits(echo)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await limits({**scope, "app": echo}, receive, send)

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.request(method, path, **more)

    return asyncio.run(call()), echo


WITH_KEY = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/v1/models", {}, 401),
        ("GET", "/v1/models", {"Authorization": "Bearer x"}, 401),
        ("GET", "/v1/models", {"Authorization": f"Basic {KEY}"}, 401),
        ("GET", "/v1/models", {"Authorization": KEY}, 401),
        ("GET", "/v1/models", WITH_KEY, 200),
        ("GET", "/v1/models", {"Authorization": f"bearer {KEY}"}, 200),
        ("POST", "/tokenize", {}, 401),
        ("POST", "/invocations", WITH_KEY, 404),
        ("POST", "/pause", WITH_KEY, 404),
        ("GET", "/docs", WITH_KEY, 404),
        ("GET", "/v1/completions", WITH_KEY, 405),
        ("POST", "/v1/models/../../invocations", WITH_KEY, 404),
    ],
)
def test_routes_and_keys(method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer, echo = ask(method, path, headers=headers)
    assert answer.status_code == status
    assert bool(echo.bodies) == (status == 200), "a refused request came to the application"


@pytest.mark.parametrize(
    ("more", "headers", "closed"),
    [("", WITH_KEY, 1008), ("/v1/realtime", {}, 1008), ("/v1/realtime", WITH_KEY, 0), ("all", {}, 1008)],
)
def test_a_websocket_is_no_way_around(
    monkeypatch: pytest.MonkeyPatch, more: str, headers: dict[str, str], closed: int
) -> None:
    """vLLM has one (/v1/realtime), which its own list of routes does not show."""
    monkeypatch.setenv("ASCEND_SERVE_ROUTES", more)
    came: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        came.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": raw, "app": Echo()}
    asyncio.run(Limits(app)(scope, None, send))  # type: ignore[arg-type]
    assert bool(came) == (closed == 0)
    assert [message["code"] for message in sent] == ([closed] if closed else [])


def test_a_body_arrives_unchanged() -> None:
    body = {"prompt": "é" * 1000, "n": 2}
    answer, echo = ask("POST", "/v1/completions", headers=WITH_KEY, json=body)
    assert answer.status_code == 200 and json.loads(echo.bodies[0]) == body


def test_too_large_a_body_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_REQUEST_LIMITS", "body_mib=1")

    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * (1 << 19)

    for content in (b"x" * ((1 << 20) + 1), chunks()):
        answer, echo = ask("POST", "/v1/completions", headers=WITH_KEY, content=content)
        assert answer.status_code == 413 and "1 MiB" in answer.text and not echo.bodies


def test_other_bounds_are_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_REQUEST_LIMITS", "n=4, body_mib=8")
    assert (Bounds.from_environment().n, Bounds.from_environment().body_mib) == (4, 8)
    for wrong in ("n=x", "m=1", "n", "n=0", "n=-1"):
        monkeypatch.setenv("ASCEND_REQUEST_LIMITS", wrong)
        with pytest.raises(ValueError, match="ASCEND_REQUEST_LIMITS has"):
            Bounds.from_environment()


@pytest.mark.parametrize(
    "name", ["n", "logprobs", "prompts", "items", "messages", "parts", "name_chars", "list", "schema_values"]
)
def test_each_bound_is_where_it_says(name: str) -> None:
    """The largest value passes, one more is refused, and the refusal names the limit."""
    limit = getattr(Bounds(), name)

    def body(size: int) -> dict[str, Any]:
        bodies: dict[str, dict[str, Any]] = {
            "n": {"n": size},
            "logprobs": {"top_logprobs": size},
            "prompts": {"prompt": ["x"] * size},
            "items": {"input": ["x"] * size},
            "messages": {"messages": [{"role": "user"}] * size},
            "parts": {"messages": [{"content": [{"text": "x"}] * (size - 2)}, {"tool_calls": [{}, {}]}]},
            "name_chars": {"model": "x" * size},
            "list": {"stop": ["x"] * size},
            "schema_values": {"structured_outputs": {"json": {"a": [{"enum": list(range(size))}]}}},
        }
        return bodies[name]

    check(body(limit), Bounds())
    with pytest.raises(Refused, match=str(limit)):
        check(body(limit + 1), Bounds())


@pytest.mark.parametrize("depth", [63, 64, 65, 10_000])
def test_depth(depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= 64:
        parse(body, Bounds())
    else:
        with pytest.raises(Refused, match="64 levels"):
            parse(body, Bounds())


def called(arguments: str) -> list[dict[str, Any]]:
    """Bodies of the routes that take former calls of tools."""
    function = {"name": "f", "arguments": arguments}
    return [
        {"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}]},
        {"messages": [{"role": "assistant", "function_call": function}]},
        {"input": [{"type": "function_call", **function}]},
    ]


@pytest.mark.parametrize("arguments", ["[" * 65 + "]" * 65, '{"a": 9223372036854775808}', r'{"a": "\ud800"}'])
def test_json_in_strings_is_held_to_the_same(arguments: str) -> None:
    for body in called(arguments):
        with pytest.raises(Refused):
            check(body, Bounds())
    for text in (arguments, "{", "[1]", "plain"):
        check({"messages": [{"role": "user", "content": text}]}, Bounds())
    for fair in ("[" * 64 + "]" * 64, "{", "", '{"a": 1}'):
        for body in called(fair):
            check(body, Bounds())


@pytest.mark.parametrize(
    ("name", "fair", "beyond"),
    [
        ("bad_words", ["x" * 32768] * 2, ["x" * 32768] * 2 + ["x"]),
        ("stop", "x" * 65536, "x" * 65537),
        ("query", "x" * (1 << 20), "x" * ((1 << 20) + 1)),
        ("documents", ["x" * (1 << 20)] * 3, [{"content": [{"type": "text", "text": "x" * ((1 << 20) + 1)}]}]),
    ],
)
def test_texts_that_no_context_bounds(name: str, fair: Any, beyond: Any) -> None:
    check({name: fair}, Bounds())
    with pytest.raises(Refused, match=f"Shorten {name}"):
        check({name: beyond}, Bounds())


PICTURE = "data:image/png;base64," + "A" * (9 << 20)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "x" * (7 << 20)}, 200),
        ({"prompt": "x" * (9 << 20)}, 413),
        ({"input": "x" * (9 << 20)}, 413),
        ({"tools": [{"function": {"description": "x" * (9 << 20)}}]}, 413),
        ({"tools": [{"data": PICTURE}]}, 413),
        ({"chat_template_kwargs": {"data": PICTURE}}, 413),
        ({"messages": [{"content": [{"type": "text", "text": PICTURE}]}]}, 413),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]}, 200),
        ({"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": PICTURE}}]}]}, 200),
        ({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": PICTURE}}]}]}, 200),
        ({"input": [{"content": [{"type": "input_image", "image_url": PICTURE}]}]}, 200),
        ({"documents": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]}, 200),
        ({"prompt_embeds": [PICTURE, PICTURE]}, 200),
    ],
)
def test_text_is_bounded_and_media_are_not_text(body: dict[str, Any], status: int) -> None:
    answer, _ = ask("POST", "/v1/chat/completions", headers=WITH_KEY, json=body)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("kind", ["json", "structural_tag"])
def test_a_deep_structure_in_a_string_is_refused(kind: str) -> None:
    with pytest.raises(Refused, match=kind):
        check({"structured_outputs": {kind: "[" * 10_000}}, Bounds())


@pytest.mark.parametrize("name", ["model", "request_id", "previous_response_id", "user"])
def test_what_goes_to_a_log_is_one_line(name: str) -> None:
    check({name: "名称 of a/model-1.0"}, Bounds())
    for wrong in ("a\nb", "a\x1b[31m", "x" * 1025):
        with pytest.raises(Refused, match=name):
            check({name: wrong}, Bounds())


def test_the_header_with_a_request_s_id_is_held_to_the_same() -> None:
    for value, status in (("x" * 1024, 200), ("x" * 1025, 400)):
        answer, _ = ask("POST", "/v1/completions", headers={**WITH_KEY, "X-Request-Id": value}, content=b"{}")
        assert answer.status_code == status


def test_texts_to_make_tokens_of_are_short() -> None:
    for path, status in (("/tokenize", 413), ("/detokenize", 413), ("/v1/completions", 200)):
        answer, _ = ask("POST", path, headers=WITH_KEY, content=b"x" * ((1 << 20) + 1))
        assert answer.status_code == status


@pytest.mark.parametrize("size", [1000, 1001, 1_000_000])
def test_errors_do_not_repeat_what_was_sent(size: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        body = json.dumps({"error": {"message": "x" * size, "code": 404}}).encode()
        passed = with_short_errors(send)
        kind = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
        await passed({"type": "http.response.start", "status": 404, "headers": kind})
        await passed({"type": "http.response.body", "body": body[:500], "more_body": True})
        await passed({"type": "http.response.body", "body": body[500:]})

    asyncio.run(run())
    start, end = sent
    error = json.loads(end["body"])["error"]
    assert error["code"] == 404 and error["message"].startswith("x" * min(size, 1000))
    assert len(error["message"]) <= 1050 and (size <= 1000 or str(size) in error["message"])
    assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()


@pytest.mark.parametrize(("status", "kind"), [(200, b"application/json"), (500, b"text/plain")])
def test_other_answers_pass_as_they_come(status: int, kind: bytes) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        passed = with_short_errors(send)
        await passed({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        assert len(sent) == 1, "held back"
        await passed({"type": "http.response.body", "body": b"x" * 5000, "more_body": True})
        await passed({"type": "http.response.body", "body": b""})

    asyncio.run(run())
    assert [len(message.get("body", b"")) for message in sent] == [0, 5000, 0]


def test_brackets_in_strings_are_no_depth() -> None:
    assert parse(json.dumps({"prompt": "[{" * 1000 + '\\"['}).encode(), Bounds())["prompt"].startswith("[{")


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": Infinity}', rb'{"a": "\ud800"}', b'{"a": 9223372036854775808}', b"nan"],
)
def test_what_is_no_json_of_ours(body: bytes) -> None:
    with pytest.raises(Refused):
        parse(body, Bounds())


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists, max_leaves=20))
def test_whatever_is_fair_comes_through(value: Any) -> None:
    body = {"prompt": value}
    assert parse(json.dumps(body).encode(), Bounds()) == body


@given(st.binary(max_size=300))
def test_bytes_are_parsed_or_refused(body: bytes) -> None:
    try:
        parse(body, Bounds())
    except Refused as refusal:
        assert "\n" not in str(refusal)[:1]


@given(st.text(), st.binary())
def test_no_other_key_is_admitted(key: str, shown: bytes) -> None:
    keys = Keys([key] if key else [KEY])
    assert keys.admit("/v1/models", b"Bearer " + shown) == (shown == (key or KEY).encode("utf-8", "surrogatepass"))


def test_more_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Routes("").has("POST", "/pause")
    assert Routes("/pause, /resume").has("POST", "/resume")
    assert Routes("all").has("POST", "/anything")
    with pytest.raises(ValueError, match="ASCEND_SERVE_ROUTES"):
        Routes("pause")
    assert all(Routes("").has(method, path) for method, paths in SERVED.items() for path in paths if "{" not in path)


@pytest.mark.parametrize(
    ("path", "kind", "started", "expected"),
    [
        ("/v1/completions", "text/event-stream; charset=utf-8", True, b'data: {"error"'),
        ("/v1/messages", "text/event-stream", True, b'event: error\ndata: {"error"'),
        ("/v1/completions", "application/json", False, b'{"error"'),
    ],
)
def test_an_answer_that_is_cut_says_so(path: str, kind: str, started: bool, expected: bytes) -> None:
    """And what the application says while it is cancelled, `[DONE]` for instance, is not passed on."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send_on: Any) -> None:
        if started:
            await send_on({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind.encode())]})
            await send_on({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await send_on({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def run() -> None:
        exchange = Exchange(path, send)
        asyncio.get_running_loop().call_later(0.05, exchange.cut, "ending")
        await exchange.run(app, {}, None)  # type: ignore[arg-type]

    asyncio.run(run())
    assert sent[0]["status"] == (200 if started else 503)
    assert sent[-1]["body"].startswith(expected) and not sent[-1].get("more_body")
    assert b"[DONE]" not in b"".join(message.get("body", b"") for message in sent)


def test_a_complete_answer_is_not_cut() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        exchange = Exchange("/v1/completions", send)

        async def app(scope: Any, receive: Any, send_on: Any) -> None:
            events = [(b"content-type", b"text/event-stream")]
            await send_on({"type": "http.response.start", "status": 200, "headers": events})
            await send_on({"type": "http.response.body", "body": b"whole"})
            exchange.cut("ending")
            await asyncio.sleep(1)

        await exchange.run(app, {}, None)  # type: ignore[arg-type]

    asyncio.run(run())
    assert [message.get("body") for message in sent] == [None, b"whole"]


def test_only_a_server_s_parser_is_changed() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--shutdown-timeout", type=int, default=0)
    service.set_server_defaults(parser)
    assert parser.parse_args([]).shutdown_timeout == 0
    parser.add_argument("--middleware", action="append", default=[])
    service.set_server_defaults(parser)
    assert vars(parser.parse_args([])) == {"shutdown_timeout": service.DRAIN_S, "middleware": [service.LIFETIME]}
    given = parser.parse_args(["--middleware", "x", "--shutdown-timeout", "0"])
    assert given.middleware == [service.LIFETIME, "x"] and given.shutdown_timeout == 0
    assert parser.parse_args(["--middleware", "y"]).middleware == [service.LIFETIME, "y"], "defaults were appended to"
