"""R1, R2, R9: whatever a client sends, it is told what to do in one sentence, and everybody else is served on.

After each case the same canary must have the same answer, and `/health` must be prompt for a client beside it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from .conftest import CONTEXT
from .results import record, record_largest
from .server import Running

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
PROMPT = {"model": "tiny", "prompt": "The", "max_tokens": 4}
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
HEALTH_LIMIT_S = 5  # seen beyond 9 s before there were bounds
SLOW_MACHINE = 20  # times what /health takes with nobody else there is added, for a machine that others use
MEMORY_LIMIT = 100 << 20
DEEP = "[" * 10_000 + "]" * 10_000
LONG = "x" * 1_000_000
SELF_REFERRING = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
EXPLODING = 'root ::= a{1,100000}\na ::= ("x" | "y" | root){1,1000}'


def raw(body: dict[str, Any], extra: str) -> bytes:
    """A body with text that json.dumps would not write."""
    return json.dumps(body)[:-1].encode() + b", " + extra.encode() + b"}"


def calling(arguments: str) -> dict[str, Any]:
    """A conversation in which a tool was called."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    answers = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "x"}]
    return {"messages": [{"role": "user", "content": "x"}, *answers]}


def tool(number: int, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{number}", "parameters": parameters}}


# (name, path, body): a dict is sent as JSON, bytes as they are. Each is to be answered 4xx.
REFUSED: list[tuple[str, str, Any]] = [
    ("n of a billion", COMPLETIONS, PROMPT | {"n": 10**9}),
    ("n of a thousand, chat", CHAT, ASK | {"n": 1000}),
    ("best_of", COMPLETIONS, PROMPT | {"best_of": 10**6}),
    ("logprobs of a million", COMPLETIONS, PROMPT | {"logprobs": 10**6}),
    ("top_logprobs", CHAT, ASK | {"logprobs": True, "top_logprobs": 10**6}),
    ("prompt_logprobs", COMPLETIONS, PROMPT | {"prompt_logprobs": 10**6}),
    ("max_tokens of 2**63", COMPLETIONS, raw({"model": "tiny", "prompt": "x"}, f'"max_tokens": {2**63}')),
    ("an integer of 4,000 digits", COMPLETIONS, raw({"model": "tiny", "prompt": "x"}, '"seed": ' + "9" * 4000)),
    ("a seed beyond 64 bits", CHAT, ASK | {"seed": 2**70}),
    ("10,000 stop strings", COMPLETIONS, PROMPT | {"stop": [f"s{i}" for i in range(10_000)]}),
    ("10,000 bad words", COMPLETIONS, PROMPT | {"bad_words": [f"s{i}" for i in range(10_000)]}),
    ("logit_bias of 50,000", COMPLETIONS, PROMPT | {"logit_bias": {str(i): 1 for i in range(49_000)}}),
    ("temperature NaN", COMPLETIONS, raw(PROMPT, '"temperature": NaN')),
    ("top_p Infinity", COMPLETIONS, raw(PROMPT, '"top_p": -Infinity')),
    ("logit_bias NaN", COMPLETIONS, raw(PROMPT, '"logit_bias": {"1": NaN}')),
    ("a lone surrogate in stop", COMPLETIONS, raw(PROMPT, r'"stop": "\ud800"')),
    ("a lone surrogate in user", CHAT, raw(ASK, r'"user": "\udfff"')),
    ("a lone surrogate in request_id", CHAT, raw(ASK, r'"request_id": "\ud83d"')),
    ("10,000 nested lists", COMPLETIONS, raw({"model": "tiny"}, f'"prompt": {DEEP}')),
    (
        "deep tools",
        CHAT,
        raw(ASK, '"tools": [{"type": "function", "function": ' + '{"a":' * 5000 + "1" + "}" * 5001 + "]"),
    ),
    ("5,000 prompts", COMPLETIONS, PROMPT | {"prompt": ["x"] * 5000}),
    ("5,000 prompts of tokens", COMPLETIONS, PROMPT | {"prompt": [[1, 2]] * 5000}),
    ("20,000 messages", CHAT, ASK | {"messages": ASK["messages"] * 20_000}),  # type: ignore[operator]
    ("a prompt of 10 MB", COMPLETIONS, PROMPT | {"prompt": "word " * 2_000_000}),
    ("a message of 10 MB", CHAT, ASK | {"messages": [{"role": "user", "content": "word " * 2_000_000}]}),
    ("a million token ids", COMPLETIONS, PROMPT | {"prompt": [5] * 1_000_000}),
    ("a token id of a billion", COMPLETIONS, PROMPT | {"prompt": [10**9]}),
    ("negative token ids", COMPLETIONS, PROMPT | {"prompt": [-1, -2]}),
    (
        "a schema of 100,000 values",
        CHAT,
        ASK | {"structured_outputs": {"json": {"enum": [f"v{i}" for i in range(10**5)]}}},
    ),
    (
        "response_format of 100,000 values",
        CHAT,
        ASK
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"enum": [f"{i}" for i in range(10**5)]}},
            }
        },
    ),
    ("a choice of 100,000", COMPLETIONS, PROMPT | {"structured_outputs": {"choice": [f"v{i}" for i in range(10**5)]}}),
    ("a regex of 1 MB", COMPLETIONS, PROMPT | {"structured_outputs": {"regex": "(a|b|c)*" * 130_000}}),
    ("a regex that explodes", COMPLETIONS, PROMPT | {"structured_outputs": {"regex": "(a|b|ab)*" * 450}}),
    ("a pattern of 1 MB in a schema", CHAT, ASK | {"structured_outputs": {"json": {"pattern": "a" * (1 << 16)}}}),
    ("a grammar of 1 MB", COMPLETIONS, PROMPT | {"structured_outputs": {"grammar": 'root ::= "a"\n' * 80_000}}),
    ("a grammar that is none", COMPLETIONS, PROMPT | {"structured_outputs": {"grammar": "root ::= ((("}}),
    ("a template in the request", CHAT, ASK | {"chat_template": "{% for i in range(10**9) %}x{% endfor %}"}),
    ("an attack on the template's kwargs", CHAT, ASK | {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}),
    ("deep arguments of a call", CHAT, ASK | calling(DEEP)),
    ("deep arguments to make tokens of", "/tokenize", {"model": "tiny"} | calling(DEEP)),
    (
        "deep arguments of a call in a response's input",
        RESPONSES,
        {"model": "tiny", "input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": DEEP}]},
    ),
    ("arguments beyond 64 bits", CHAT, ASK | calling('{"a": ' + "9" * 4000 + "}")),
    ("arguments with a lone surrogate", CHAT, ASK | calling(r'{"a": "\ud800"}')),
    ("a deep schema in a string", CHAT, ASK | {"structured_outputs": {"json": DEEP}}),
    ("a deep structural tag in a string", CHAT, ASK | {"structured_outputs": {"structural_tag": DEEP}}),
    ("a choice of 1 MB", COMPLETIONS, PROMPT | {"structured_outputs": {"choice": [LONG]}}),
    (
        "40 tools that take seconds each",
        CHAT,
        ASK | {"tools": [tool(i, {"type": "string", "maxLength": 100_000 + i}) for i in range(40)]},
    ),
    ("50,000 parts", CHAT, ASK | {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 50_000}]}),
    ("a message without content", CHAT, ASK | {"messages": [{"role": "user", "content": None}]}),
    ("a text of 2 MB to make tokens of", "/tokenize", {"model": "tiny", "prompt": LONG * 2}),
    ("a million tokens to make text of", "/detokenize", {"model": "tiny", "tokens": [5] * 1_000_000}),
    (
        "1,000 tools of 10 kB",
        CHAT,
        ASK | {"tools": [tool(i, {}) | {"description": "word " * 2000} for i in range(1000)]},
    ),
    ("documents of 10 MB", CHAT, ASK | {"documents": [{"title": "x", "text": "y " * 2500}] * 2000}),
    ("messages of 10 MB", CHAT, ASK | {"messages": [{"role": "user", "content": "x " * 2500}] * 2000}),
    ("bad words of 2 MB", COMPLETIONS, PROMPT | {"bad_words": [LONG, LONG]}),
    ("stop strings of 1 MB", COMPLETIONS, PROMPT | {"stop": [LONG]}),
    ("a model's name of 1 MB", COMPLETIONS, PROMPT | {"model": LONG}),
    ("a request's id of 1 MB", COMPLETIONS, PROMPT | {"request_id": LONG}),
    ("a request's id of two lines", CHAT, ASK | {"request_id": "a\nERROR b"}),
    ("a former response of 1 MB", RESPONSES, {"model": "tiny", "input": "x", "previous_response_id": LONG}),
    ("no JSON", COMPLETIONS, b"{"),
    ("binary", COMPLETIONS, bytes(range(256)) * 100),
    ("gzip that names itself so", COMPLETIONS, gzip.compress(b" " * 10_000_000)),
    ("an empty body", CHAT, b""),
    ("a list", CHAT, b"[1, 2]"),
]
# May be answered or refused, but in bounded time and without an error of the server.
ODD: list[tuple[str, str, Any]] = [
    ("a schema that refers to itself", CHAT, ASK | {"structured_outputs": {"json": SELF_REFERRING}}),
    ("an infinite grammar", COMPLETIONS, PROMPT | {"structured_outputs": {"grammar": 'root ::= "a" root'}}),
    ("a left-recursive grammar", COMPLETIONS, PROMPT | {"structured_outputs": {"grammar": 'root ::= root "a" | "a"'}}),
    ("a grammar of many repetitions", COMPLETIONS, PROMPT | {"structured_outputs": {"grammar": EXPLODING}}),
    ("unicode classes", COMPLETIONS, PROMPT | {"structured_outputs": {"regex": r"[\p{L}\d]{1,1000}"}}),
    ("a structural tag of garbage", CHAT, ASK | {"response_format": {"type": "structural_tag", "structures": [1]}}),
]


@pytest.fixture(scope="module")
def canary(served: Running) -> str:
    return served.complete("Once")


class Beside:
    """A client that asks /health all the time; `slowest_s` is what it had to wait, `limit_s` what it may have to."""

    def __init__(self, server: Running) -> None:
        self.slowest_s = self.limit_s = 0.0
        self._server, self._stop = server, threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.slowest_s = max(self.slowest_s, self._waited_s())
            time.sleep(0.05)

    def _waited_s(self) -> float:
        begin = time.monotonic()
        status = self._server.health(timeout_s=60)
        return time.monotonic() - begin if status == 200 else 1e9

    def __enter__(self) -> Beside:
        self.limit_s = HEALTH_LIMIT_S + SLOW_MACHINE * max(self._waited_s() for _ in range(5))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def ask(server: Running, path: str, body: Any, timeout_s: float = 60) -> httpx.Response:
    headers = server.headers | {"Content-Type": "application/json"}
    return httpx.post(f"{server.url}{path}", content=encoded(body), headers=headers, timeout=timeout_s)


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def sentence(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    return str(error["message"] if isinstance(error, dict) else error)


def memory(server: Running) -> int:
    """Of the front end: the engine's caches may grow with what they are asked."""
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.breaks("decide.prepare: leave --middleware out")
def test_what_is_refused(served: Running, canary: str) -> None:
    before = memory(served)
    wrong: list[str] = []
    bodies = [(name, path, encoded(body)) for name, path, body in REFUSED]  # now: it would hold up the other client
    with Beside(served) as beside:
        for name, path, body in bodies:
            answer = ask(served, path, body)
            if not 400 <= answer.status_code < 500:
                wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")
            elif "error" not in answer.json():
                wrong.append(f"{name}: no error as OpenAI's clients read them: {answer.text[:200]}")
            elif len(sentence(answer)) > 1500 or "Traceback" in answer.text:
                wrong.append(f"{name}: {sentence(answer)[:200]}")
            if served.complete("Once") != canary:
                wrong.append(f"{name}: the next answer differs")
    assert wrong == []
    assert beside.slowest_s < beside.limit_s
    assert memory(served) - before < MEMORY_LIMIT
    record("R2", "hostile bodies refused", len(REFUSED))
    record_largest("R2", "growth of the front end, MiB", (memory(served) - before) >> 20)


@pytest.mark.breaks("limits._check_json: try grammars on the event loop")
def test_what_is_odd_is_bounded(served: Running, canary: str) -> None:
    with Beside(served) as beside:
        for name, path, body in ODD:
            answer = ask(served, path, body, timeout_s=120)
            assert answer.status_code < 500, f"{name}: {answer.text[:300]}"
            assert served.complete("Once") == canary, name
    assert beside.slowest_s < beside.limit_s
    record("R2", "odd bodies answered in bounded time", len(ODD))


@pytest.mark.breaks("grammars.serve: run the trials one after another")
def test_one_clients_grammar_is_not_anothers_delay(served: Running) -> None:
    """While grammars explode, a plain structured request is answered and not after them."""
    choice = {"structured_outputs": {"choice": ["yes", "no"]}}
    assert ask(served, COMPLETIONS, PROMPT | choice).json()["choices"][0]["text"] in ("yes", "no")
    bad = [
        threading.Thread(
            target=ask,
            args=(served, COMPLETIONS, PROMPT | {"structured_outputs": {"regex": f"(a|b|ab|{index})*" * 300}}, 120),
            daemon=True,
        )
        for index in range(4)
    ]
    for thread in bad:
        thread.start()
    time.sleep(0.5)
    assert any(thread.is_alive() for thread in bad), "the grammars are not hard enough for this test"
    answer = ask(served, COMPLETIONS, PROMPT | {"structured_outputs": {"choice": ["one", "two"]}})
    assert answer.json()["choices"][0]["text"] in ("one", "two")
    assert any(thread.is_alive() for thread in bad), "the plain one waited for those that explode"
    for thread in bad:
        thread.join(120)


@pytest.mark.breaks("limits._read: no time limit")
def test_slow_and_silent_clients(served: Running, canary: str) -> None:
    """Slow bodies are given up, silent readers cost nobody, idle connections starve nobody."""
    idle = [_connection(served) for _ in range(100)]
    slow = [_connection(served) for _ in range(20)]
    for connection in slow:
        connection.sendall(_head(served, 1000) + b'{"model": ')
    deaf = [_connection(served) for _ in range(8)]
    for connection in deaf:
        body = json.dumps(PROMPT | {"max_tokens": 2000, "ignore_eos": True, "stream": True}).encode()
        connection.sendall(_head(served, len(body)) + body)
    with Beside(served) as beside:
        assert served.complete("Once") == canary
        for connection in slow:
            connection.settimeout(60)
            assert b" 408 " in connection.recv(4096)
    assert beside.slowest_s < beside.limit_s
    for connection in (*idle, *slow, *deaf):
        connection.close()
    _until_idle(served)
    record("R2", "slow, idle and deaf connections", len(idle) + len(slow) + len(deaf))


def _connection(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def _head(server: Running, length: int) -> bytes:
    lines = [f"POST {COMPLETIONS} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in server.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _until_idle(server: Running) -> None:
    deadline = time.monotonic() + 60
    while server.metric("vllm:num_requests_running") or server.metric("vllm:kv_cache_usage_perc"):
        assert time.monotonic() < deadline, "requests went on without their clients"
        time.sleep(0.2)


@pytest.mark.breaks("limits._admit and _read: no bound")
def test_large_bodies_and_headers(served: Running, canary: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(60):
            yield b"x" * (1 << 20)

    before = memory(served)
    for content in (b"x" * (49 << 20), chunks()):
        headers = served.headers | {"Content-Type": "application/json"}
        try:
            answer = httpx.post(f"{served.url}{COMPLETIONS}", content=content, headers=headers, timeout=60)
            assert answer.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            pass  # it closed the connection while the client still wrote
    for name, value in (("X-Long", "x" * (5 << 20)), ("X-Request-Id", "x" * 70_000)):
        try:
            answer = httpx.get(f"{served.url}/v1/models", headers=served.headers | {name: value}, timeout=30)
            assert answer.status_code < 500
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            pass
    many = served.headers | {f"X-{index}": "1" for index in range(5000)}
    with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        assert httpx.get(f"{served.url}/v1/models", headers=many, timeout=30).status_code < 500
    assert served.complete("Once") == canary
    assert memory(served) - before < MEMORY_LIMIT
    record("R2", "oversized bodies and headers", 5)


@pytest.mark.breaks("bounds.Bounds: 100 messages")
def test_what_is_large_but_fair_is_served(served: Running) -> None:
    """The bounds are above what clients do."""
    tokens = list(range(100, 100 + CONTEXT - 16))
    assert ask(served, COMPLETIONS, PROMPT | {"prompt": tokens}).status_code == 200
    assert len(ask(served, COMPLETIONS, PROMPT | {"prompt": ["x"] * 64, "n": 2}).json()["choices"]) == 128
    assert ask(served, CHAT, ASK | {"messages": ASK["messages"] * 200}).status_code == 200  # type: ignore[operator]
    schema = {"type": "object", "properties": {f"p{i}": {"enum": [f"v{j}" for j in range(20)]} for i in range(20)}}
    assert ask(served, CHAT, ASK | {"structured_outputs": {"json": schema}}).status_code == 200
