"""Options of `vllm serve` that do not reach the chip: many at once in one server, and what comes of each."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml
import zmq

from .server import Server, free_port, serve

pytestmark = pytest.mark.slow  # a server of their own

TEMPLATE = (
    "{% if tools %}There are tools. {% endif %}{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
    "{% endfor %}{% if mood %}Be {{ mood }}, please.\n{% endif %}{% if add_generation_prompt %}assistant:{% endif %}"
)
MIDDLEWARE = """
class Marked:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def marked(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-marked", b"yes")]
            await send(message)

        await self.app(scope, receive, marked if scope["type"] == "http" else send)
"""
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
MOST_REQUESTS = 6


class Collector(BaseHTTPRequestHandler):
    """Takes traces as OTLP over HTTP, and keeps their bytes."""

    taken: list[bytes] = []  # noqa: RUF012  shared by the requests on purpose

    def do_POST(self) -> None:
        Collector.taken.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def events_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(smollm2: Path, tmp_path_factory: pytest.TempPathFactory, events_port: int) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("flags")
    (folder / "template.jinja").write_text(TEMPLATE)
    (folder / "marking.py").write_text(MIDDLEWARE)
    (folder / "config.yaml").write_text(yaml.safe_dump({"fingerprint-mode": "custom", "fingerprint-value": "a-mark"}))
    events = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{events_port}"}
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    options: list[tuple[str, ...]] = [
        ("--config", str(folder / "config.yaml")),
        ("--served-model-name", "smollm2"),
        ("--override-generation-config", '{"temperature": 0}'),
        ("--chat-template", str(folder / "template.jinja")),
        ("--chat-template-content-format", "string"),
        ("--default-chat-template-kwargs", '{"mood": "calm"}'),
        ("--trust-request-chat-template",),
        ("--response-role", "scribe"),
        ("--exclude-tools-when-tool-choice-none",),
        ("--return-tokens-as-token-ids",),
        ("--max-logprobs", "3"),
        ("--logprobs-mode", "raw_logits"),
        ("--enable-force-include-usage",),
        ("--enable-prompt-tokens-details",),
        ("--enable-per-request-metrics",),
        ("--enable-server-load-tracking",),
        ("--enable-tokenizer-info-endpoint",),
        ("--enable-request-id-headers",),
        ("--enable-log-requests",),
        ("--enable-log-outputs",),
        ("--max-log-len", "12"),
        ("--disable-access-log-for-endpoints", "/ping"),
        ("--allowed-origins", '["http://page.example"]'),
        ("--allowed-methods", '["POST"]'),
        ("--allowed-headers", '["X-Wanted"]'),
        ("--allow-credentials",),
        ("--disable-fastapi-docs",),
        ("--root-path", "/behind"),
        ("--middleware", "marking.Marked"),
        ("--stream-interval", "5"),
        ("--scheduling-policy", "priority"),
        ("--prefix-caching-hash-algo", "sha256_cbor"),
        ("--kv-events-config", json.dumps(events)),
        ("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"),
        ("--kv-cache-metrics",),
        ("--kv-cache-metrics-sample", "1.0"),
        ("--enable-logging-iteration-details",),
        ("--hf-overrides", '{"max_position_embeddings": 1536}'),
        ("--tokenizer", str(smollm2)),
        ("--gpu-memory-utilization", "0.07"),
        ("--structured-outputs-config", '{"backend": "guidance"}'),
        ("--max-num-queued-reqs", str(MOST_REQUESTS)),
    ]
    environment = {"PYTHONPATH": str(folder), "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    arguments = [part for option in options for part in option]
    with serve(str(smollm2), *arguments, log=folder / "log", environment=environment) as server:
        yield server
    collector.shutdown()
    collector.server_close()


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.root_url}{path}", json={"model": "smollm2", **body}, timeout=120)


def chat(server: Server, **others: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 4} | others
    answer = post(server, "/v1/chat/completions", **body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def prompt_of(server: Server, **others: Any) -> str:
    """What the server makes of a chat, as text."""
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say yes."}]}]} | others
    tokens = post(server, "/tokenize", **body).json()["tokens"]
    return str(post(server, "/detokenize", tokens=tokens).json()["prompt"])


def metrics(server: Server) -> str:
    return httpx.get(f"{server.root_url}/metrics", timeout=60).text


def test_templates(served: Server) -> None:
    assert prompt_of(served) == "user: Say yes.\nBe calm, please.\nassistant:"
    assert "Be quick, please." in prompt_of(served, chat_template_kwargs={"mood": "quick"})
    plain = chat(served)["usage"]["prompt_tokens"]
    assert chat(served, tools=[TOOL], tool_choice="none")["usage"]["prompt_tokens"] == plain
    assert chat(served, chat_template="Yes or no?")["usage"]["prompt_tokens"] < plain


def test_answers(served: Server) -> None:
    answer = chat(served, logprobs=True, top_logprobs=3)
    assert answer["choices"][0]["message"]["role"] == "scribe"
    assert answer["system_fingerprint"] == "a-mark"
    first = answer["choices"][0]["logprobs"]["content"][0]
    assert re.fullmatch(r"token_id:\d+", first["token"])
    assert first["logprob"] > 0  # a logit; the logarithm of a probability is not
    assert answer["metrics"], answer
    refused = post(served, "/v1/chat/completions", messages=[{"role": "user", "content": "x"}], logprobs=True,
                   top_logprobs=4)  # fmt: skip
    assert refused.status_code == 400 and "3" in refused.json()["error"]["message"]


def test_streams(served: Server) -> None:
    body = {"model": "smollm2", "prompt": "one, two, three,", "max_tokens": 20, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{served.base_url}/completions", json=body, timeout=120) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    assert events[-1]["usage"]["completion_tokens"] == 20
    assert 4 <= sum(bool(event["choices"]) for event in events) <= 6  # five tokens each, the first alone


def test_headers_and_pages(served: Server) -> None:
    url = f"{served.root_url}/v1/models"
    answer = httpx.get(url, headers={"Origin": "http://page.example", "X-Request-Id": "of-mine"})
    assert answer.headers["x-request-id"] == "of-mine"
    assert answer.headers["x-marked"] == "yes"
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    asked = {"Origin": "http://page.example", "Access-Control-Request-Headers": "X-Wanted"}
    assert httpx.options(url, headers=asked | {"Access-Control-Request-Method": "POST"}).status_code == 200
    assert httpx.options(url, headers=asked | {"Access-Control-Request-Method": "PUT"}).status_code == 400
    refused = asked | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-Other"}
    assert httpx.options(url, headers=refused).status_code == 400
    assert "access-control-allow-origin" not in httpx.get(url, headers={"Origin": "http://other.example"}).headers
    assert httpx.get(f"{served.root_url}/behind/v1/models").status_code == 200
    assert httpx.get(f"{served.root_url}/openapi.json").status_code == 404
    assert "server_load" in httpx.get(f"{served.root_url}/load").json()
    assert httpx.get(f"{served.root_url}/tokenizer_info").json()["tokenizer_class"]


def test_model_and_memory(served: Server) -> None:
    assert httpx.get(f"{served.root_url}/v1/models").json()["data"][0]["max_model_len"] == 1536
    text = metrics(served)
    assert 'gpu_memory_utilization="0.07"' in text
    assert 'prefix_caching_hash_algo="sha256_cbor"' in text


def test_prefixes_and_their_events(served: Server, events_port: int) -> None:
    """A block's event names its tokens; the second request finds it."""
    prompt = [number % 1000 + 50 for number in range(300)]
    stored: list[int] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(f"tcp://127.0.0.1:{events_port}")
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.setsockopt(zmq.RCVTIMEO, 1000)
        for attempt in range(10):  # a subscriber hears what is published after it has joined
            prompt[0] = 2000 + attempt
            assert post(served, "/v1/completions", prompt=prompt, max_tokens=1).status_code == 200
            with suppress(zmq.Again):
                for event in msgspec.msgpack.decode(subscriber.recv_multipart()[-1])[1]:
                    fields = event if isinstance(event, list) else list(event.values())
                    stored += next((field for field in fields if isinstance(field, list) and len(field) > 100), [])
            if stored:
                break
    assert stored[1:] == prompt[1 : len(stored)]
    again = post(served, "/v1/completions", prompt=prompt, max_tokens=1).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 256
    assert "vllm:kv_block" in metrics(served)


def test_structured_output_by_another_backend(served: Server) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    content = chat(served, response_format=wanted, max_tokens=60)["choices"][0]["message"]["content"]
    assert isinstance(json.loads(content)["yes"], bool)


def test_traces_and_logs(served: Server) -> None:
    assert httpx.get(f"{served.root_url}/ping").status_code == 200
    chat(served, max_tokens=2)
    for _ in range(20):  # spans are exported in batches, every five seconds
        if Collector.taken:
            break
        threading.Event().wait(1)
    assert any(b"llm_request" in each and b"gen_ai.usage.prompt_tokens" in each for each in Collector.taken)
    log = served.log.read_text(errors="replace")
    assert "Generated response" in log and "Received request" in log
    assert "POST /v1/chat/completions" in log and "GET /ping" not in log
    assert "Iteration(" in log


def test_priorities_and_a_full_queue(served: Server) -> None:
    assert chat(served, priority=3)["choices"]

    def ask(_: int) -> int:
        return post(served, "/v1/completions", prompt="x", max_tokens=50, ignore_eos=True).status_code

    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(ask, range(20)))
    assert set(codes) <= {200, 429, 503} and 200 in codes and len(set(codes)) > 1
