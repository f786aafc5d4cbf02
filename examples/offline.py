"""Answers without a server: `python examples/offline.py [MODEL]`.

MODEL is a folder or a hub's name; without it the embedded SmolLM2-135M-Instruct is used, which needs no network. The
chip's dtype, attention, block size and graphs are found by the plugin: no option names them.
"""

import sys
from pathlib import Path

from vllm import LLM, SamplingParams

from ascend_cli.registry.smollm2 import build_smollm2

QUESTIONS = ["What is the capital of France?", "Name a prime number between 20 and 30."]


def main() -> None:
    model = (
        sys.argv[1] if len(sys.argv) > 1 else str(build_smollm2(Path.home() / ".cache/ascend-plugin/models/smollm2"))
    )
    # Emulated chips keep their memory in this computer's: leave kv_cache_memory_bytes out on a card.
    llm = LLM(model, max_model_len=2048, kv_cache_memory_bytes=256 << 20)
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    answers = llm.chat(conversations, SamplingParams(temperature=0, max_tokens=32), use_tqdm=False)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        print(f"{question}\n    {answer.outputs[0].text.strip()}")


if __name__ == "__main__":
    main()
