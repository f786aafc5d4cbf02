"""The server's interfaces, on one `vllm serve` of a model whose greedy answer is to think and then to call a tool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import openai
import pytest

from conformance.tiny import TOOL_CALL_RECITAL, build_reciter

from .server import Server, serve

KEY = "a-secret"
THOUGHT = "\nThe weather is asked for.\n"
MODEL = "thinker"
QUESTION = [{"role": "user", "content": "How is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("thinker")
    model = build_reciter(folder / "model", pieces=("<think>", THOUGHT, "</think>", *TOOL_CALL_RECITAL))
    arguments = [str(model), "--served-model-name", MODEL, "--api-key", KEY, "--max-model-len", "1024"]
    parsers = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"]
    with serve(*arguments, *parsers, log=folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0)


def test_the_key_is_asked_for(server: Server) -> None:
    assert httpx.get(f"{server.base_url}/models").status_code == 401
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=server.base_url, api_key="another").models.list()
    assert httpx.get(f"{server.root_url}/health").status_code == 200  # a load balancer has no key


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == (MODEL, 1024)


@pytest.mark.parametrize("stream", [False, True])
def test_thought_and_tool_call_are_told_apart(client: openai.OpenAI, stream: bool) -> None:
    """tool_choice auto: the parsers find the thought and the call in what the model says."""
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[TOOL], temperature=0, max_tokens=32, stream=stream
    )
    if stream:
        chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
        thought = "".join(getattr(chunk.delta, "reasoning", None) or "" for chunk in chunks)
        calls = [call.function for chunk in chunks for call in chunk.delta.tool_calls or []]
        name, arguments = ("".join(getattr(call, part) or "" for call in calls) for part in ("name", "arguments"))
        reason = next(chunk.finish_reason for chunk in chunks if chunk.finish_reason)
    else:
        message, reason = answer.choices[0].message, answer.choices[0].finish_reason
        (call,) = message.tool_calls
        thought, name, arguments = message.reasoning, call.function.name, call.function.arguments
    assert thought.strip() == THOUGHT.strip()
    assert (name, json.loads(arguments), reason) == ("get_weather", {"city": "Paris"}, "tool_calls")


def test_responses(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
    answer = client.responses.create(
        model=MODEL, input="How is the weather in Paris?", tools=[tool], temperature=0, max_output_tokens=32
    )
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert answer.usage.output_tokens > 0


def test_completions(client: openai.OpenAI) -> None:
    """n, seed, logprobs, echo of the prompt, a bias, and the usage that a client is billed by."""
    answer = client.completions.create(
        model=MODEL, prompt="The weather", max_tokens=4, temperature=1.0, n=2, seed=3, logprobs=2, echo=True
    )
    assert len(answer.choices) == 2
    assert all(choice.text.startswith("The weather") for choice in answer.choices)
    assert answer.usage.completion_tokens == 8
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens + 4
    again = client.completions.create(model=MODEL, prompt="The weather", max_tokens=4, temperature=1.0, n=2, seed=3)
    assert [choice.text for choice in answer.choices] == ["The weather" + choice.text for choice in again.choices]
    biased = client.completions.create(model=MODEL, prompt="The", max_tokens=2, logit_bias={"28": 100}, temperature=0)
    assert biased.choices[0].text == ",,"


def test_structured_output(client: openai.OpenAI) -> None:
    """What is prescribed is the answer, after a thought that is free."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=32,
        temperature=0,
        extra_body={"structured_outputs": {"choice": ["It rains.", "It snows."]}},
    )
    message = answer.choices[0].message
    assert message.reasoning.strip() == THOUGHT.strip()
    assert message.content in ("It rains.", "It snows.")


def test_streamed_completion(client: openai.OpenAI) -> None:
    request = {"model": MODEL, "prompt": "The", "max_tokens": 48, "temperature": 0, "extra_body": {"ignore_eos": True}}
    whole = client.completions.create(**request).choices[0].text
    chunks = list(client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert len(parts) > 1  # how many is the machine's business: tokens that wait for a slow server are sent together
    assert "".join(parts) == whole
    assert chunks[-1].usage.completion_tokens == 48


def test_bad_requests_leave_the_server_alive(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="another", prompt="The")
    with pytest.raises(openai.BadRequestError, match="1024"):
        client.completions.create(model=MODEL, prompt="word " * 2000)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt="The", temperature=-1)
    assert client.completions.create(model=MODEL, prompt="The", max_tokens=1).usage.completion_tokens == 1


def test_metrics(server: Server, client: openai.OpenAI) -> None:
    client.completions.create(model=MODEL, prompt="The", max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
    text = httpx.get(f"{server.root_url}/metrics").text
    generated = re.search(r"^vllm:generation_tokens_total\{.*\} ([\d.e+]+)$", text, re.MULTILINE)
    assert float(generated[1]) >= 5
    assert "vllm:kv_cache_usage_perc" in text
