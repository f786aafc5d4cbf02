"""Pictures, films and sounds as users send them: `vllm serve` on an emulated Duo, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from conformance import media
from tests.end_to_end.server import Server, serve

from .served import make_checkpoint_with_media, on_the_cpu

pytestmark = pytest.mark.slow

NEAR_TIE = 0.3  # of log-probability: what fp16 may swap; a wrong picture moves logits by units
NAME = "pictures"
SMALL = ["--max-model-len", "1024", "--max-num-batched-tokens", "256", "--kv-cache-memory-bytes", str(1 << 28)]
WIDE = {  # as many heads as four ranks want
    "qwen3-vl": {
        "vision_config": {"num_heads": 4, "hidden_size": 288},
        "text_config": {"num_attention_heads": 8, "num_key_value_heads": 4},
    },
    "qwen3_5-vl": {
        "vision_config": {"num_heads": 4, "hidden_size": 288},
        "text_config": {"num_key_value_heads": 4, "linear_num_key_heads": 4, "linear_num_value_heads": 8},
    },
}

# How far each chosen token's logit is below the best one's, in fp32, for a chat with one picture.
JUDGE = """
import json, sys
sys.modules["torch_npu"] = None
from ascend_plugin.compat import torchvision
torchvision.apply()
import torch, transformers
from PIL import Image
from conformance.media_reference import _continued
folder, picture = sys.argv[1:]
text, prompt, answer = json.loads(sys.stdin.read())
model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
processor = transformers.AutoProcessor.from_pretrained(folder)
inputs = dict(processor(text=[text], images=[Image.open(picture)], return_tensors="pt"))
with torch.inference_mode():
    logits = model(**_continued(inputs, prompt + answer)).logits[0, len(prompt) - 1 : -1]
print(json.dumps((logits.amax(-1) - logits.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)).tolist()))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with red.png and blue.png, which are no single colors, of two sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    media.picture(112, 84, 5).save(folder / "red.png")
    media.picture(64, 96, 6).save(folder / "blue.png")
    (folder / "broken.png").write_bytes(b"this is no picture")
    return folder


@pytest.fixture(scope="module")
def site(pictures: Path) -> Iterator[str]:
    """The same folder over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(pictures))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


CASES = [("qwen3-vl", 1), ("qwen3-vl", 2), ("qwen3-vl", 4), ("qwen3_5-vl", 1), ("qwen3_5-vl", 2), ("qwen3_5-vl", 4)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        name: make_checkpoint_with_media(name, tmp_path_factory.mktemp("models"), json.dumps(changes))
        for name, changes in WIDE.items()
    }


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-tp{case[1]}")
def served(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, str],
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, str]]:
    name, ranks = request.param
    flags = ["--served-model-name", NAME, "--tensor-parallel-size", str(ranks), *SMALL]
    flags += ["--limit-mm-per-prompt", '{"image": 3, "video": 1}', "--allowed-local-media-path", str(pictures)]
    flags += ["--enable-prompt-tokens-details", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with serve(checkpoints[name], *flags, log=log, environment={"ASCEND_EMULATOR_CHIP": "310P3"}) as server:
        yield server, checkpoints[name]


def embedded(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def picture_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def ask(server: Server, *parts: str | dict[str, Any], **fields: Any) -> httpx.Response:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    body = {"model": NAME, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 12}
    return httpx.post(f"{server.base_url}/chat/completions", json={**body, **fields}, timeout=180)


def answer(server: Server, *parts: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    reply = ask(server, *parts, ignore_eos=True, return_token_ids=True, **fields)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def tokens_of(reply: dict[str, Any]) -> list[int]:
    found: list[int] = reply["choices"][0]["token_ids"]
    return found


def test_a_picture_by_url_in_the_request_and_from_a_file_is_the_same_and_right(
    served: tuple[Server, str], pictures: Path, site: str
) -> None:
    server, checkpoint = served
    file = pictures / "red.png"
    ways = [f"{site}/red.png", embedded(file), file.as_uri()]
    replies = [answer(server, picture_part(way), "What is in it?") for way in ways]
    assert len({tuple(tokens_of(reply)) for reply in replies}) == 1
    text = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is in it?<|im_end|>\n<|im_start|>assistant\n"
    )
    given = json.dumps([text, replies[0]["prompt_token_ids"], tokens_of(replies[0])])
    gaps = json.loads(on_the_cpu(JUDGE, checkpoint, str(file), text=given))
    assert max(gaps) < NEAR_TIE, gaps


def test_order_of_several_pictures_counts(served: tuple[Server, str], pictures: Path) -> None:
    server, _ = served
    red, blue = (picture_part(embedded(pictures / f"{name}.png")) for name in ("red", "blue"))
    answers = [tokens_of(answer(server, *parts, "Compare them.")) for parts in ((red, blue), (blue, red), (red, blue))]
    assert answers[0] == answers[2] != answers[1]


def test_a_second_question_about_a_picture_finds_it_in_the_prefix_cache(
    served: tuple[Server, str], pictures: Path
) -> None:
    server, _ = served
    context = "Here is some context that fills blocks of the cache. " * 16
    part = picture_part(embedded(pictures / "blue.png"))
    first = answer(server, context, part, "What is it?")
    second = answer(server, context, part, "Where was it made?")
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    again = answer(server, context, part, "What is it?")
    assert tokens_of(again) == tokens_of(first)
    other = answer(server, context, picture_part(embedded(pictures / "red.png")), "What is it?")
    assert tokens_of(other) != tokens_of(first)


def test_a_film(served: tuple[Server, str]) -> None:
    server, _ = served

    def film(seed: int) -> dict[str, Any]:
        frames = []
        for number in range(media.FRAMES):
            file = io.BytesIO()
            media.picture(56, 56, seed + number).save(file, "JPEG", quality=95)
            frames.append(base64.b64encode(file.getvalue()).decode())
        return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(frames)}"}}

    one, same, other = (tokens_of(answer(server, film(seed), "What happens?")) for seed in (1, 1, 40))
    assert one == same != other


def without_spaces(checkpoint: str) -> dict[str, int]:
    """A bias against tokens of nothing but spaces, of which JSON allows a model without sense as many as it likes."""
    vocabulary = json.loads((Path(checkpoint) / "tokenizer.json").read_text())["model"]["vocab"]
    return {str(number): -100 for token, number in vocabulary.items() if not token.strip("ĠĊĉč")}


def test_streaming_and_a_tool_call_with_a_picture(served: tuple[Server, str], pictures: Path) -> None:
    server, checkpoint = served
    part = picture_part(embedded(pictures / "red.png"))
    whole = answer(server, part, "Go on.")["choices"][0]["message"]["content"]
    body = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "Go on."}]}]}
    body |= {"model": NAME, "temperature": 0, "max_tokens": 12, "ignore_eos": True, "stream": True}
    text = ""
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=180) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    assert text == whole
    color = {"type": "string", "enum": ["red", "blue"]}
    parameters = {
        "type": "object",
        "properties": {"color": color},
        "required": ["color"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "paint", "parameters": parameters, "strict": True}}
    choice = {"type": "function", "function": {"name": "paint"}}
    settings = {"tools": [tool], "tool_choice": choice, "max_tokens": 120, "logit_bias": without_spaces(checkpoint)}
    called = ask(server, part, "Paint it.", **settings)
    assert called.status_code == 200, called.text
    call = called.json()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "paint" and set(json.loads(call["arguments"])) <= {"color"}


def test_bad_media_is_the_client_s_fault_and_the_server_goes_on(
    served: tuple[Server, str], pictures: Path, site: str, tmp_path: Path
) -> None:
    server, _ = served
    outside = tmp_path / "secret.png"
    media.picture(56, 56, 1).save(outside)
    red = picture_part(embedded(pictures / "red.png"))
    bad = {
        "not a picture": [picture_part(embedded(pictures / "broken.png"))],
        "no base64": [picture_part("data:image/png;base64,@@@@")],
        "not there": [picture_part(f"{site}/missing.png")],
        "outside of the folder": [picture_part(outside.as_uri())],
        "more than the limit": [red] * 4,
        "no such kind": [{"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}}],
    }
    for reason, parts in bad.items():
        reply = ask(server, *parts, "What is it?")
        assert 400 <= reply.status_code < 500, f"{reason}: {reply.status_code} {reply.text}"
        assert len(reply.json()["error"]["message"]) > 10
    assert answer(server, red, "Still there?")["choices"]


def test_a_picture_s_embedding(
    checkpoints: dict[str, str], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("logs") / "server.log"
    flags = ["--served-model-name", NAME, "--runner", "pooling", "--convert", "embed", *SMALL]
    with serve(checkpoints["qwen3-vl"], *flags, log=log, environment={"ASCEND_EMULATOR_CHIP": "310P3"}) as server:

        def embed(name: str) -> np.ndarray:
            content = [picture_part(embedded(pictures / f"{name}.png")), {"type": "text", "text": "Represent it."}]
            body = {"model": NAME, "messages": [{"role": "user", "content": content}], "encoding_format": "float"}
            reply = httpx.post(f"{server.base_url}/embeddings", json=body, timeout=180)
            assert reply.status_code == 200, reply.text
            return np.array(reply.json()["data"][0]["embedding"])

        red, again, blue = (embed(name) for name in ("red", "red", "blue"))
    assert abs(float(np.linalg.norm(red)) - 1) < 1e-2
    assert float(red @ again) > 0.999 > float(red @ blue)


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_a_transcription(chip: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = make_checkpoint_with_media("qwen3-asr", tmp_path_factory.mktemp("models"))
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with serve(
        checkpoint, "--served-model-name", NAME, *SMALL, log=log, environment={"ASCEND_EMULATOR_CHIP": chip}
    ) as server:

        def transcribe(content: bytes) -> httpx.Response:
            files = {"file": ("speech.wav", content, "audio/wav")}
            data = {"model": NAME, "temperature": "0", "language": "en", "max_completion_tokens": "16"}
            return httpx.post(f"{server.base_url}/audio/transcriptions", files=files, data=data, timeout=180)

        one, same, other = (transcribe(recording(seed)) for seed in (1, 1, 9))
        for reply in (one, same, other):
            assert reply.status_code == 200, reply.text
        assert one.json()["text"] == same.json()["text"] != other.json()["text"]
        refused = transcribe(b"this is no sound")
        assert 400 <= refused.status_code < 500, refused.text


def recording(seed: int) -> bytes:
    """A wav file of one second."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(media.SAMPLE_RATE)
        writer.writeframes((media.sound(media.SAMPLE_RATE, seed).clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
