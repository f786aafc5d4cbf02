"""Answers an engine's job with transformers in fp16: lets the runner be tested where no engine can start.

Takes the job of `conformance.engine`, and writes what that would write.
"""

# ruff: noqa: E402 - what hides the NPU has to come before the imports that look for it
import json
import sys
from pathlib import Path

sys.modules["torch_npu"] = None  # type: ignore[assignment]

import numpy as np
import torch
import transformers

from conformance.architectures import architectures
from conformance.reference import answer


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    architecture = architectures()[sys.argv[2]]
    model_class = getattr(transformers, architecture.model_class)
    model = model_class.from_pretrained(job["checkpoint"], dtype=torch.float16, attn_implementation="eager").eval()
    rows = {}
    checks = {"whole": job["whole"], "chunked": job["chunked"], "again": job["chunked"]}
    with torch.inference_mode():
        for check, prompts in checks.items():
            for index, prompt in enumerate(prompts):
                tokens = list(prompt)
                for _ in range(job["new_tokens"] if architecture.task == "generate" else 0):
                    tokens.append(int(answer(architecture, model, tokens)[-1].argmax()))
                first = len(prompt) - 1 if check == "again" else 0
                last = len(tokens) - 1 if architecture.task == "generate" else None
                name = f"{check}.{index}"
                rows[f"{name}.tokens"], rows[f"{name}.prompt"] = np.array(tokens), np.array(len(prompt))
                rows[f"{name}.first"] = np.array(first)
                rows[f"{name}.rows"] = answer(architecture, model, tokens)[first:last].numpy()
    np.savez(job["output"], **rows)
    report = {"outcome": "ran", "message": "", "dtype": "float16", "graphs": "FULL", "cached_tokens": 256}
    Path(job["report"]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
