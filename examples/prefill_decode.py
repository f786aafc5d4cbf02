"""One engine reads a prompt, another goes on from it, through a folder: `python examples/prefill_decode.py [MODEL]`.

On two servers the same is `--kv-transfer-config` with `kv_producer` on one, `kv_consumer` on the other, and a folder
that both see; a router sends each prompt to the first with `max_tokens=1`, then to the second.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from ascend_cli.registry.smollm2 import build_smollm2

PROMPT = "A fox met a crow that had found a cheese. " * 20 + "Then the fox said:"


def engine(model: str, folder: str, role: str, tokens: int) -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        max_model_len=2048,
        kv_cache_memory_bytes=256 << 20,  # for emulated chips; leave it out on a card
        kv_transfer_config={
            "kv_connector": "ExampleConnector",
            "kv_role": role,
            "kv_connector_extra_config": {"shared_storage_path": folder},
        },
    )
    output = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=tokens), use_tqdm=False)[0]
    tokens_in = len(output.prompt_token_ids)
    read = tokens_in - output.num_cached_tokens
    print(f"{role}: {read} of {tokens_in} tokens read; {output.outputs[0].text.strip()!r}", flush=True)


def main() -> None:
    if len(sys.argv) == 5:
        engine(*sys.argv[1:4], int(sys.argv[4]))
        return
    model = (
        sys.argv[1] if len(sys.argv) > 1 else str(build_smollm2(Path.home() / ".cache/ascend-plugin/models/smollm2"))
    )
    with tempfile.TemporaryDirectory() as folder:
        for role, tokens in (("kv_producer", "1"), ("kv_consumer", "24")):
            # A process each, as on two machines: an engine has its chip for as long as its process lives.
            subprocess.run([sys.executable, __file__, model, folder, role, tokens], check=True)


if __name__ == "__main__":
    main()
