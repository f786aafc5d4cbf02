"""Embeddings, scores and ranks as a user gets them, from `vllm serve` over HTTP, against transformers in fp32."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.end_to_end.server import Server, serve

from .served import make_checkpoint, on_the_cpu

pytestmark = pytest.mark.slow

TEXTS = ["Rivers run to the sea.", "def fibonacci(n):", "What is the capital of France? " * 12]
QUERY, DOCUMENTS = "Which town lies on the Seine?", ["Paris lies on the Seine.", "A prime has two divisors.", "Seine"]
SMALL = ["--max-model-len", "512", "--max-num-batched-tokens", "512", "--max-num-seqs", "4"]

EMBED = """
import json, sys
sys.modules["torch_npu"] = None
import torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModel.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.inference_mode():
    rows = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in json.load(sys.stdin)]
print(json.dumps([torch.nn.functional.normalize(row, dim=0).tolist() for row in rows]))
"""

SCORE = """
import json, sys
sys.modules["torch_npu"] = None
import torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
query, documents = json.load(sys.stdin)
with torch.inference_mode():
    pairs = [tokenizer(query, document, return_tensors="pt") for document in documents]
    print(json.dumps([model(**pair).logits.sigmoid().item() for pair in pairs]))
"""


def post(server: Server, path: str, **body: object) -> dict:
    reply = httpx.post(f"{server.root_url}{path}", json={"model": "m", **body}, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_embeddings(chip: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = make_checkpoint("qwen3-embedding", tmp_path_factory.mktemp("models"))
    log = tmp_path_factory.mktemp("logs") / "server.log"
    flags = ["--served-model-name", "m", "--runner", "pooling", "--kv-cache-memory-bytes", str(1 << 27), *SMALL]
    with serve(checkpoint, *flags, log=log, environment={"ASCEND_EMULATOR_CHIP": chip}) as server:
        found = [row["embedding"] for row in post(server, "/v1/embeddings", input=TEXTS)["data"]]
    expected = np.array(json.loads(on_the_cpu(EMBED, checkpoint, text=json.dumps(TEXTS))))
    likeness = np.array(found) @ expected.T
    assert np.diag(likeness).min() > 0.999  # unit vectors
    assert (likeness - np.eye(len(TEXTS))).max() < 0.9


@pytest.mark.parametrize("chip", ["310P3", "910B3"])
def test_scores_and_ranks(chip: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoint = make_checkpoint("bert-classifier", tmp_path_factory.mktemp("models"), '{"num_labels": 1}')
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with serve(
        checkpoint, "--served-model-name", "m", *SMALL, log=log, environment={"ASCEND_EMULATOR_CHIP": chip}
    ) as server:
        scores = [row["score"] for row in post(server, "/score", queries=QUERY, documents=DOCUMENTS)["data"]]
        ranked = post(server, "/rerank", query=QUERY, documents=DOCUMENTS)["results"]
    expected = json.loads(on_the_cpu(SCORE, checkpoint, text=json.dumps([QUERY, DOCUMENTS])))
    assert scores == pytest.approx(expected, abs=0.01)
    assert [row["index"] for row in ranked] == sorted(range(len(DOCUMENTS)), key=lambda index: -expected[index])
    assert max(expected) - min(expected) > 0.05
