"""Several LoRA adapters and the bare model in one batch: `python examples/lora.py [MODEL ADAPTER...]`.

ADAPTER is a folder as PEFT writes it. Without arguments the embedded SmolLM2 runs with an adapter of random numbers,
which only shows that the answer is another one.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from ascend_cli.registry.smollm2 import build_smollm2

PROMPT = "The three laws of thermodynamics are"
RANK = 8


def random_adapter(model: Path, folder: Path) -> Path:
    """An adapter of every layer's query projection, in PEFT's format."""
    random = np.random.default_rng(0)
    tensors = {}
    with safe_open(model / "model.safetensors", "np") as weights:
        for name in weights.keys():  # noqa: SIM118 - not a mapping
            if name.endswith("q_proj.weight"):
                outputs, inputs = weights.get_slice(name).get_shape()
                layer = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{layer}.lora_A.weight"] = random.standard_normal((RANK, inputs), np.float32)
                tensors[f"{layer}.lora_B.weight"] = random.standard_normal((outputs, RANK), np.float32) / 10
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home() / ".cache/ascend-plugin/models/smollm2"
        adapters = [Path(argument) for argument in sys.argv[2:]]
        if len(sys.argv) == 1:
            adapters = [random_adapter(build_smollm2(model), Path(scratch) / "random")]
        requests = [None, *(LoRARequest(path.name, n, str(path)) for n, path in enumerate(adapters, start=1))]
        llm = LLM(
            str(model),
            enable_lora=True,
            max_loras=max(1, len(adapters)),
            max_lora_rank=64,
            max_model_len=2048,
            kv_cache_memory_bytes=256 << 20,  # for emulated chips; leave it out on a card
        )
        sampling = SamplingParams(temperature=0, max_tokens=24)
        answers = llm.generate([PROMPT] * len(requests), sampling, lora_request=requests, use_tqdm=False)
        for request, answer in zip(requests, answers, strict=True):
            text = " ".join(answer.outputs[0].text.split())
            print(f"{request.lora_name if request else 'no adapter'}: {text}")


if __name__ == "__main__":
    main()
