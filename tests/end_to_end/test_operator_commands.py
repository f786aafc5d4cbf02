"""The commands of an operator's notes on Atlas 300I Duo, verbatim but for model path and port.

Each test names the section of that page. Weights of the published models are not at hand where tests run: SmolLM2-135M
answers where an answer must make sense, a tiny seeded Qwen3 stands in where its architecture is the point.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import httpx
import openai
import pytest

from .server import VLLM, Server, run

COMPLETION = {"prompt": "你好", "max_completion_tokens": 64, "top_p": 0.95, "top_k": 50, "temperature": 0.6}
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,  # without it vLLM holds the model to the tool's name only, not to its schema
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Beijing", "Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0)


def test_models_are_listed(served_qwen3_tp4: Server) -> None:
    """Section 3: curl -s http://localhost:8000/v1/models."""
    listing = httpx.get(f"{served_qwen3_tp4.base_url}/models").json()
    assert [model["id"] for model in listing["data"]] == ["qwen3-32b"]


def test_completion_without_a_model_name(served_qwen3_tp4: Server) -> None:
    """Section 3: the published JSON body, which names no model."""
    response = httpx.post(f"{served_qwen3_tp4.base_url}/completions", json=COMPLETION, timeout=120)
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] > 0


def test_chat_answers_sensibly(served_smollm2: Server) -> None:
    answer = client(served_smollm2).chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
        temperature=0,
        max_tokens=32,
    )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_chat_streams(served_smollm2: Server) -> None:
    question = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Count to five."}],
        "max_tokens": 24,
        "temperature": 0,
    }
    whole = client(served_smollm2).chat.completions.create(**question).choices[0].message.content
    stream = client(served_smollm2).chat.completions.create(**question, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1, "a stream arrives in pieces"
    assert "".join(pieces) == whole


@pytest.mark.parametrize("stream", [False, True])
def test_named_tool_is_called_with_valid_arguments(served_smollm2: Server, stream: bool) -> None:
    """Section 2's tool flags: the arguments must be JSON that obeys the tool's schema, streamed or not."""
    answer = client(served_smollm2).chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        tools=[WEATHER_TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
        max_tokens=64,
        stream=stream,
    )
    if stream:
        deltas = [call for chunk in answer for call in (chunk.choices[0].delta.tool_calls or [])]
        name = "".join(call.function.name or "" for call in deltas)
        arguments = "".join(call.function.arguments or "" for call in deltas)
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name == "get_weather"
    assert json.loads(arguments)["city"] in ("Beijing", "Paris")


def test_vllm_chat(served_smollm2: Server) -> None:
    """Section 4: vllm chat, one question and out."""
    question = "What is the capital of France?"
    chat = run(VLLM, "chat", "--url", served_smollm2.base_url, "--quick", question)
    assert chat.returncode == 0, chat.stderr
    assert "Paris" in chat.stdout


def test_vllm_complete(served_smollm2: Server) -> None:
    completion = run(VLLM, "complete", "--url", served_smollm2.base_url, "--quick", "The capital of France is")
    assert completion.returncode == 0, completion.stderr
    assert "Paris" in completion.stdout


def test_bench_throughput(tiny_qwen3: Path) -> None:
    """Offline benchmark with the published flags.

    vLLM's random data set reads --random-input-len and --random-output-len, so these flags run 1,024 and 128 tokens a
    prompt, as the published own totals show (204,800 of 200 prompts). `ascend bench throughput` refuses such a run.
    """
    bench = run(
        *(VLLM, "bench", "throughput", "--enforce-eager", "--dtype", "float16", "--model", str(tiny_qwen3)),
        *("--input-len", "256", "--output-len", "128", "--num-prompts", "2", "--tensor-parallel-size", "2"),
        timeout_s=600,
    )
    assert bench.returncode == 0, bench.stderr[-4000:]
    prompt_tokens = int(re.search(r"Total num prompt tokens:\s+(\d+)", bench.stdout)[1])
    output_tokens = int(re.search(r"Total num output tokens:\s+(\d+)", bench.stdout)[1])
    assert (prompt_tokens, output_tokens) == (2 * 1024, 2 * 128)


def test_bench_serve_by_served_name(served_qwen3_tp4: Server, tiny_qwen3: Path) -> None:
    """Online benchmark by served name. vLLM's client wants --tokenizer beside it; `ascend bench serve` finds it."""
    model_id = httpx.get(f"{served_qwen3_tp4.base_url}/models").json()["data"][0]["id"]
    bench = run(
        *(VLLM, "bench", "serve", "--model", model_id, "--port", str(served_qwen3_tp4.port)),
        *("--tokenizer", str(tiny_qwen3)),
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--dataset-name", "random"),
        *("--random-input-len", "64", "--random-output-len", "8", "--num-prompts", "4", "--max-concurrency", "1"),
        timeout_s=600,
    )
    assert bench.returncode == 0, bench.stderr[-4000:]
    assert re.search(r"Successful requests:\s+4\b", bench.stdout), bench.stdout
    assert re.search(r"Total generated tokens:\s+32\b", bench.stdout), bench.stdout


def test_explicit_bfloat16_is_refused_on_310p(tiny_qwen3: Path) -> None:
    refused = run(VLLM, "serve", str(tiny_qwen3), "--dtype", "bfloat16", timeout_s=120)
    assert refused.returncode != 0
    assert "float16" in refused.stderr + refused.stdout
    assert "310P" in refused.stderr + refused.stdout


def test_python_has_no_ascend_software_but_ours() -> None:
    """A bare import of torch_npu works, as the served commands above rely on."""
    probe = run(sys.executable, "-c", "import torch; print(torch.npu.get_device_name(0), torch.npu.device_count())")
    assert probe.returncode == 0, probe.stderr
    assert probe.stdout.split() == ["Ascend310P3", "4"]
