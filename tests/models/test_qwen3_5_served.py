"""Qwen3.5 as a user gets it: `vllm serve` with no flag but the tool parser's, chat, streaming, a tool call."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.end_to_end.server import Server, serve

from .served import make_checkpoint, on_the_cpu

pytestmark = pytest.mark.slow

NEAR_TIE = 0.2  # of log-probability: what fp16 may swap; a wrong state moves logits by units

# How far each chosen token's logit is below the best one's, in fp32.
JUDGE = """
import json, sys
sys.modules["torch_npu"] = None
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
prompt, answer = json.loads(sys.stdin.read())
with torch.inference_mode():
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
print(json.dumps((logits.amax(-1) - logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)).tolist()))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_checkpoint("qwen3_5", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=["310P3", "910B3"])
def served(
    request: pytest.FixtureRequest, checkpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    flags = ["--served-model-name", "qwen3.5", "--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder"]
    small = ["--max-model-len", "1024", "--max-num-batched-tokens", "256", "--kv-cache-memory-bytes", str(1 << 28)]
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with serve(checkpoint, *flags, *small, log=log, environment={"ASCEND_EMULATOR_CHIP": request.param}) as server:
        yield server


def chat(server: Server, text: str, **fields: object) -> dict:
    body = {"model": "qwen3.5", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24}
    reply = httpx.post(f"{server.base_url}/chat/completions", json={**body, **fields}, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_chat_answers_what_the_model_says(served: Server, checkpoint: str) -> None:
    long = "Tell me about rivers. " * 90  # two chunks of prefill
    for text in ("What is the capital of France?", long, long):
        reply = chat(served, text, return_token_ids=True, ignore_eos=True)
        tokens = reply["prompt_token_ids"], reply["choices"][0]["token_ids"]
        assert len(tokens[1]) == 24
        gaps = json.loads(on_the_cpu(JUDGE, checkpoint, text=json.dumps(tokens)))
        assert max(gaps) < NEAR_TIE, gaps


def test_streaming_gives_the_same_text(served: Server) -> None:
    body = {"model": "qwen3.5", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 16}
    text = ""
    with httpx.stream(
        "POST", f"{served.base_url}/chat/completions", json={**body, "stream": True}, timeout=120
    ) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    assert text and text == chat(served, "Hello", max_tokens=16)["choices"][0]["message"]["content"]


def test_a_tool_call_comes_back_as_one(served: Server) -> None:
    """The grammar holds random weights to the call's form; it leaves them free to leave the arguments out."""
    city = {"type": "string", "enum": ["Paris", "Oslo"]}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    reply = chat(served, "Weather in Oslo?", tools=[tool], tool_choice=choice, max_tokens=120)
    call = reply["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    assert set(json.loads(call["arguments"])) <= {"city"}
