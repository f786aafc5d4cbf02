"""Texts as vectors, and which text is nearest to a question: `python examples/embeddings.py [MODEL]`.

Any model that vLLM can pool will do. The embedded SmolLM2 shows the calls; for figures that mean something give an
embedding model, Qwen/Qwen3-Embedding-0.6B for example.
"""

import sys
from pathlib import Path

import numpy as np
from vllm import LLM

from ascend_cli.registry.smollm2 import build_smollm2

TEXTS = ["Paris lies on the Seine.", "A prime number has two divisors.", "Bread is made of flour, water and salt."]
QUESTION = "Which town lies on the Seine?"


def main() -> None:
    model = (
        sys.argv[1] if len(sys.argv) > 1 else str(build_smollm2(Path.home() / ".cache/ascend-plugin/models/smollm2"))
    )
    llm = LLM(model, runner="pooling", convert="embed", max_model_len=512, kv_cache_memory_bytes=256 << 20)
    vectors = np.array([output.outputs.embedding for output in llm.embed([QUESTION, *TEXTS], use_tqdm=False)])
    print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers")
    for text, likeness in zip(TEXTS, vectors[1:] @ vectors[0], strict=True):
        print(f"{likeness:6.3f}  {text}")


if __name__ == "__main__":
    main()
