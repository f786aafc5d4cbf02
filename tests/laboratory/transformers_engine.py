"""Answers an engine's job with transformers in fp16: lets the runner be tested where no engine can start.

Takes the job of `conformance.engine`, and writes what that would write.
"""

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import json
import sys
from pathlib import Path

sys.modules["torch_npu"] = None  # type: ignore[assignment]

from ascend_plugin.compat import torchvision

torchvision.apply()

import numpy as np
import torch
import transformers

from conformance import media, media_reference
from conformance.architectures import architectures
from conformance.reference import answer


def _tokens(processor, prompt: dict) -> list[int]:
    """The prompt's tokens as the processor writes them."""
    inputs = media.inputs_for_reference(processor, prompt)
    return inputs["input_ids"][0].tolist()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    architecture = architectures()[sys.argv[2]]
    model_class = getattr(transformers, architecture.model_class)
    model = model_class.from_pretrained(job["checkpoint"], dtype=torch.float16, attn_implementation="eager").eval()
    processor = media_reference.read_processor(Path(job["checkpoint"])) if architecture.media else None
    rows = {}
    checks = {"whole": job["whole"], "chunked": job["chunked"], "again": job["chunked"]}
    with torch.inference_mode():
        for check, prompts in checks.items():
            for index, prompt in enumerate(prompts):
                with_media = prompt if architecture.media else None
                if with_media is not None:
                    prompt = _tokens(processor, with_media)
                tokens = list(prompt)
                for _ in range(job["new_tokens"] if architecture.task == "generate" else 0):
                    found = answer(architecture, model, tokens, with_media, processor)
                    tokens.append(int(found[-1].argmax()))
                first = len(prompt) - 1 if check == "again" else 0
                last = len(tokens) - 1 if architecture.task == "generate" else None
                name = f"{check}.{index}"
                rows[f"{name}.tokens"], rows[f"{name}.prompt"] = np.array(tokens), np.array(len(prompt))
                rows[f"{name}.first"] = np.array(first)
                found = answer(architecture, model, tokens, with_media, processor)
                rows[f"{name}.rows"] = found[first:last].numpy()
    np.savez(job["output"], **rows)
    report = {"outcome": "ran", "message": "", "dtype": "float16", "graphs": "FULL", "cached_tokens": 256}
    Path(job["report"]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
